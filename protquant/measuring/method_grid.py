"""Methods and settings as data: every pair of them is an ordinary recipe."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from torch import nn

from protquant.errors import ProtquantError, suggestion
from protquant.files import atomic_write, prepare_folder
from protquant.files.plain_data import parse_yaml, typed
from protquant.proteins import safe_name
from protquant.quant import Recipe, plan
from protquant.quant.formats import FORMATS
from protquant.quant.plugins import load_plugins
from protquant.quant.steps import STEPS
from protquant.sites import WEIGHT_KINDS

__all__ = ["Cell", "Method", "MethodGrid", "Part", "group_size", "load_method_grid", "write_recipes"]

Part = Literal["language", "folding"]
PARTS: tuple[Part, ...] = get_args(Part)
_LARGEST_GROUP = 128
_Bits = Literal["weight_bits", "activation_bits"]
_OTHER_INTERPOLATION = re.compile(r"\$\{(?!(?:weight_bits|activation_bits|group_size)\})[^}]*")
_Formats = dict[str, dict[str, Any] | None]


@dataclass(frozen=True)
class Cell:
    """A method at a setting, for a part of the table.

    Attributes
    ----------
    recipe : Recipe or None
        None if this version does not have a step or a format of it.
    missing : str
        Which steps and formats those are; empty if there are none.
    """

    method: str
    setting: str
    part: Part
    recipe: Recipe | None
    missing: str = ""


@dataclass(frozen=True)
class _Content:
    """Keys of a recipe."""

    calibration: dict[str, Any] | None = None
    kinds: _Formats = field(default_factory=dict)
    sites: _Formats = field(default_factory=dict)
    steps: list[dict[str, Any]] | None = None
    propagate: str | None = None


@dataclass(frozen=True)
class Method(_Content):
    """An entry of the list: a row of the table at some settings.

    Attributes
    ----------
    name, title : str
        What the method is called in options and in a table.
    settings, parts : list of str
        Where the entry holds; all by default. A method that differs between settings has several entries.
    """

    name: str = ""
    title: str = ""
    settings: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=lambda: list(PARTS))


@dataclass(frozen=True)
class _File:
    settings: dict[str, dict[_Bits, int]]
    methods: list[Method]
    common: _Content = field(default_factory=_Content)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MethodGrid:
    """Methods and settings.

    Attributes
    ----------
    settings : dict
        `weight_bits` and `activation_bits` of each setting by its name; what is not given stays in float.
    common : dict
        Keys that the recipes of all methods have.
    entries : tuple of Method
        The list of the file.
    notes : tuple of str
        What a reader of the table must know.
    source : str
        The file, for messages.
    """

    settings: dict[str, dict[_Bits, int]]
    common: _Content
    entries: tuple[Method, ...]
    notes: tuple[str, ...]
    source: str

    @property
    def methods(self) -> dict[str, Method]:
        """Each method by its name, in the order of the file, with all the settings of its entries."""
        names = dict.fromkeys(entry.name for entry in self.entries)
        return {name: self._joined([entry for entry in self.entries if entry.name == name]) for name in names}

    def _joined(self, entries: Sequence[Method]) -> Method:
        shown = [name for name in self.settings if any(name in entry.settings for entry in entries)]
        return replace(entries[0], settings=shown)

    def cells(
        self,
        part: Part,
        group: int,
        methods: Collection[str] | None = None,
        settings: Collection[str] | None = None,
    ) -> list[Cell]:
        """Return the cells of a part, method after method.

        Parameters
        ----------
        group : int
            What `${group_size}` stands for: number of neighbors in a row of a weight that share a scale.
        methods, settings : collection of str, optional
            Only these; all by default.

        Raises
        ------
        ProtquantError
            If a name is not known, or the recipe of a method is not valid.
        """
        chosen = _choose("method", methods, self.methods)
        shown = _choose("setting", settings, self.settings)
        return [
            self._cell(entry, setting, part, group)
            for method in chosen
            for setting in shown
            for entry in self.entries
            if entry.name == method and setting in entry.settings and part in entry.parts
        ]

    def _cell(self, method: Method, setting: str, part: Part, group: int) -> Cell:
        bits = self.settings[setting]
        content = {
            each.name: getattr(method, each.name) or getattr(self.common, each.name) for each in fields(_Content)
        }
        content["sites"] = {**self.common.sites, **method.sites}
        content["kinds"] = {
            kind: form
            for kind, form in {**self.common.kinds, **method.kinds}.items()
            if ("weight_bits" if kind in WEIGHT_KINDS else "activation_bits") in bits
        }
        where = f"{self.source}: method {method.name} at {setting}"
        filled = _resolve(
            {name: value for name, value in content.items() if value}, bits | {"group_size": group}, where
        )
        missing = _missing(filled)
        if missing:
            return Cell(method.name, setting, part, None, missing)
        name = f"{setting.lower()}-{method.name}"
        try:
            recipe = Recipe.from_dict({"name": name, "description": f"{method.title} at {setting}", **filled})
        except ProtquantError as error:
            raise ProtquantError(f"{where}: {error}") from None
        return Cell(method.name, setting, part, recipe)


def load_method_grid(source: Path | None = None) -> MethodGrid:
    """Methods of a YAML file, by default those that ship with protquant (`configs/methods.yaml`, which explains it).

    Raises
    ------
    ProtquantError
        If the file cannot be read, or says what is not understood.
    """
    where = "methods.yaml" if source is None else str(source)
    shipped = resources.files("protquant.configs") / "methods.yaml"
    try:
        data = parse_yaml((shipped if source is None else source).read_text(encoding="utf-8"))
        if other := _OTHER_INTERPOLATION.search(repr(data)):
            raise ValueError(f"{other[0]}}} is none of ${{weight_bits}}, ${{activation_bits}}, ${{group_size}}")
        file = typed(_File, data)
    except (OSError, UnicodeDecodeError) as error:
        raise ProtquantError(f"{where} cannot be read as text ({error})") from error
    except ValueError as error:
        raise ProtquantError(f"{where}: {error}") from None
    for name in (*file.settings, *(entry.name for entry in file.methods)):
        # Files of recipes are called by them.
        if safe_name(name) != name:
            raise ProtquantError(f"{where}: {name!r} is no name of a method or setting: letters, digits, '.', '_', '-'")
    seen = set()
    for entry in file.methods:
        for setting in entry.settings:
            if setting not in file.settings:
                known = suggestion(setting, file.settings)
                raise ProtquantError(f"{where}: method {entry.name}: unknown setting {setting!r}; {known}")
        for place in product([entry.name], entry.settings or file.settings, entry.parts):
            if place in seen:
                raise ProtquantError(f"{where}: method {entry.name} has two entries for {place[1]}, {place[2]}")
            seen.add(place)
    entries = (replace(e, title=e.title or e.name, settings=e.settings or list(file.settings)) for e in file.methods)
    return MethodGrid(file.settings, file.common, tuple(entries), tuple(file.notes), where)


def group_size(model: nn.Module) -> int:
    """The largest multiple of 8, up to AWQ's 128, that divides the rows of all linear layers but excluded ones (heads).

    Raises
    ------
    ProtquantError
        If none does.
    """
    layers = [
        model.get_submodule(assignment.site.module)
        for assignment in plan(model, Recipe())
        if assignment.site.kind == "linear_weight" and not assignment.excluded
    ]
    common = math.gcd(*(layer.in_features for layer in layers if isinstance(layer, nn.Linear)))
    sizes = [size for size in range(8, _LARGEST_GROUP + 1, 8) if common % size == 0]
    if not sizes:
        raise ProtquantError(f"{common} columns are all that rows of weights have in common: too few for groups")
    return sizes[-1]


def write_recipes(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write the recipe of every cell as `<part>/<setting>-<method>.yaml`, which `--quant` takes."""
    written = []
    for cell in cells:
        if cell.recipe is not None:
            path = prepare_folder(folder / cell.part) / f"{cell.recipe.name}.yaml"
            text = yaml.safe_dump(cell.recipe.to_dict(), sort_keys=False, default_flow_style=None, width=120)
            written.append(atomic_write(path, text))
    return written


def _choose(what: str, names: Collection[str] | None, known: Mapping[str, Any]) -> list[str]:
    for name in names or ():
        if name not in known:
            raise ProtquantError(f"unknown {what} {name!r}; {suggestion(name, list(known))}")
    return [name for name in known if names is None or name in names]


def _resolve(content: dict[str, Any], values: Mapping[Any, int], where: str) -> dict[str, Any]:
    """Put numbers in the places of `${weight_bits}` and its like."""
    from omegaconf import OmegaConf  # noqa: PLC0415 (it takes time to import)
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create({**values, "recipe": content}), resolve=True)
    except OmegaConfBaseException as error:
        raise ProtquantError(f"{where}: {str(error).splitlines()[0]}: the setting does not say it") from None
    recipe: dict[str, Any] = resolved["recipe"]
    return recipe


def _missing(content: Mapping[str, Any]) -> str:
    load_plugins()
    formats = [form for key in ("kinds", "sites") for form in content.get(key, {}).values() if form]
    # What has no name at all is no recipe, and says so when it is read.
    unknown = [f"format {form['format']!r}" for form in formats if str(form.get("format", "uniform")) not in FORMATS]
    unknown += [
        f"step {step['step']!r}" for step in content.get("steps", ()) if str(step.get("step", "awq")) not in STEPS
    ]
    return ", ".join(dict.fromkeys(unknown))
