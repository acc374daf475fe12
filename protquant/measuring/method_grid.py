"""Methods and settings as data; every pair is a recipe."""

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
    """A method at a setting, in a part of the table.

    Attributes
    ----------
    recipe : Recipe or None
        None if a step or format of the method does not exist in this version.
    missing : str
        Names of these steps and formats; empty if there are none.
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
    """An entry of the file: a row of the table at some settings.

    Attributes
    ----------
    name, title : str
        Name of the method in options, and its title in tables.
    settings, parts : list of str
        Settings and parts that the entry applies to; by default all. A method that differs between settings has several
        entries.
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
        `weight_bits` and `activation_bits` of each setting, by name; a missing value means float.
    common : dict
        Keys of all recipes.
    entries : tuple of Method
        Entries of the file.
    notes : tuple of str
        Notes for readers of the table.
    source : str
        Path of the file, for messages.
    """

    settings: dict[str, dict[_Bits, int]]
    common: _Content
    entries: tuple[Method, ...]
    notes: tuple[str, ...]
    source: str

    @property
    def methods(self) -> dict[str, Method]:
        """Return the settings of each method, by name, in the order of the file."""
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
            Value of `${group_size}`: number of neighbors in a row of a weight that share a scale.
        methods, settings : collection of str, optional
            Only these; all by default.

        Raises
        ------
        ProtquantError
            If a name is unknown, or the recipe of a method is not valid.
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
            kind: format_
            for kind, format_ in {**self.common.kinds, **method.kinds}.items()
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
    """Return the methods of a YAML file, by default of `configs/methods.yaml`, which explains the format.

    Raises
    ------
    ProtquantError
        If the file cannot be read, or has invalid content.
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
        # Names are used as names of recipe files.
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
    """Return the largest multiple of 8, up to AWQ's 128, that divides the rows of all linear layers but heads.

    Raises
    ------
    ProtquantError
        If no multiple does.
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
    """Write the recipe of every cell as `<part>/<setting>-<method>.yaml`, for `--quant`."""
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
    """Replace `${weight_bits}` and other placeholders by numbers."""
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
    formats = [format_ for key in ("kinds", "sites") for format_ in content.get(key, {}).values() if format_]
    # An entry without a name is invalid, and raises an error when it is read.
    unknown = [
        f"format {format_['format']!r}" for format_ in formats if str(format_.get("format", "uniform")) not in FORMATS
    ]
    unknown += [
        f"step {step['step']!r}" for step in content.get("steps", ()) if str(step.get("step", "awq")) not in STEPS
    ]
    return ", ".join(dict.fromkeys(unknown))
