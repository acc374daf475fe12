"""Methods and settings as data: every pair of them is an ordinary recipe."""

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
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
from protquant.quant.steps import STEPS
from protquant.sites import KINDS, WEIGHT_KINDS

__all__ = ["Cell", "Method", "MethodGrid", "Part", "group_size", "load_method_grid", "write_recipes"]

Part = Literal["language", "folding"]
PARTS: tuple[Part, ...] = get_args(Part)
_LARGEST_GROUP = 128
_RECIPE_KEYS: dict[str, Any] = {
    "calibration": dict[str, Any],
    "kinds": dict[str, dict[str, Any] | None],
    "sites": dict[str, dict[str, Any] | None],
    "steps": list[dict[str, Any]],
    "propagate": str,
}
_KEYS: dict[str, Any] = {"notes": list[str], "title": str, "settings": list[str], **_RECIPE_KEYS}


@dataclass(frozen=True)
class Cell:
    """A method at a setting, for a part of the table.

    Attributes
    ----------
    recipe : Recipe or None
        None where a step or a format that it takes is not known.
    missing : str
        Which, in words; empty where none is.
    """

    method: str
    setting: str
    part: Part
    recipe: Recipe | None
    missing: str = ""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes
    ----------
    name, title : str
        What it is called in options and in a table.
    settings : tuple of str
        Where it is shown.
    content : dict
        What its recipe has beside, or instead of, what all have in common: keys of a recipe.
    at : dict
        The same for a setting or a part (`language`, `folding`) alone, by its name.
    """

    name: str
    title: str
    settings: tuple[str, ...]
    content: dict[str, Any] = field(default_factory=dict)
    at: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodGrid:
    """Methods and settings.

    Attributes
    ----------
    settings : dict
        Bits of weights (`W`) and activations (`A`) by name; what is not given stays in float.
    common : dict
        What the recipes of all methods have.
    methods : dict
        By name, in order.
    notes : tuple of str
        What a reader of the table must know.
    source : str
        The file, for messages.
    """

    settings: dict[str, dict[str, int]]
    common: dict[str, Any]
    methods: dict[str, Method]
    notes: tuple[str, ...] = ()
    source: str = "methods.yaml"

    def cells(
        self,
        part: Part,
        group: int,
        methods: Collection[str] | None = None,
        settings: Collection[str] | None = None,
    ) -> list[Cell]:
        """The cells of a part, method after method.

        Parameters
        ----------
        group : int
            How many neighbors in a row of a weight share a scale where a recipe says `G`.
        methods, settings : collection of str, optional
            Only these; all by default.

        Raises
        ------
        ProtquantError
            For a name that is not known, or a method whose recipe is none.
        """
        chosen = _choose("method", methods, self.methods)
        shown = _choose("setting", settings, self.settings)
        return [
            self._cell(self.methods[method], setting, part, group)
            for method in chosen
            for setting in shown
            if setting in self.methods[method].settings
        ]

    def _cell(self, method: Method, setting: str, part: Part, group: int) -> Cell:
        bits: dict[str, int] = {**self.settings[setting], "G": group}
        content: dict[str, Any] = {}
        for layer in (self.common, method.content, method.at.get(part, {}), method.at.get(setting, {})):
            content = _laid_over(content, layer)
        content["kinds"] = {
            kind: form
            for kind, form in content.get("kinds", {}).items()
            if ("W" if kind in WEIGHT_KINDS else "A") in bits
        }
        where = f"{self.source}: method {method.name} at {setting}"
        filled = _fill(content, bits, where)
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
    except (OSError, UnicodeDecodeError) as error:
        raise ProtquantError(f"{where} cannot be read as text ({error})") from error
    except ValueError as error:
        raise ProtquantError(f"{where}: {error}") from None
    top = _mapping(where, data, ("notes", "settings", "common", "methods"), ("notes",))
    settings = {
        str(name): _bits(f"{where}: settings.{name}", bits)
        for name, bits in _mapping(f"{where}: settings", top.get("settings")).items()
    }
    methods = {}
    entries = _mapping(f"{where}: methods", top.get("methods"))
    for name in (*settings, *map(str, entries)):
        # Files of recipes are called by them.
        if safe_name(name) != name:
            raise ProtquantError(f"{where}: {name!r} is no name of a method or setting: letters, digits, '.', '_', '-'")
    for name, entry in entries.items():
        here = f"{where}: methods.{name}"
        content = _mapping(here, entry, ("title", "settings", "at", *_RECIPE_KEYS))
        shown = tuple(str(setting) for setting in content.pop("settings", settings))
        for setting in shown:
            if setting not in settings:
                raise ProtquantError(f"{here}: unknown setting {setting!r}; {suggestion(setting, settings)}")
        at = _mapping(f"{here}.at", content.pop("at", {}), (*settings, *PARTS))
        for key, layer in at.items():
            _mapping(f"{here}.at.{key}", layer, _RECIPE_KEYS)
        methods[str(name)] = Method(str(name), str(content.pop("title", name)), shown, content, at)
    common = _mapping(f"{where}: common", top.get("common", {}), _RECIPE_KEYS)
    return MethodGrid(settings, common, methods, tuple(top.get("notes", ())), where)


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


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `above` instead of those `below`; of kinds and sites one by one."""
    result = copy.deepcopy(below)
    for key, value in above.items():
        if key in ("kinds", "sites"):
            result[key] = {**result.get(key, {}), **copy.deepcopy(value)}
        else:
            result[key] = copy.deepcopy(value)
    return result


def _fill(value: Any, bits: Mapping[str, int], where: str) -> Any:
    """Numbers in the places of the letters W, A and G."""
    if isinstance(value, dict):
        return {key: _fill(item, bits, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, bits, where) for item in value]
    if value in ("W", "A", "G"):
        if value not in bits:
            raise ProtquantError(f"{where}: {value} is asked for, and the setting does not say it")
        return bits[value]
    return value


def _missing(content: Mapping[str, Any]) -> str:
    formats = [form for key in ("kinds", "sites") for form in content.get(key, {}).values() if form]
    # What has no name at all is no recipe, and says so when it is read.
    unknown = [f"format {form['format']!r}" for form in formats if str(form.get("format", "uniform")) not in FORMATS]
    unknown += [
        f"step {step['step']!r}" for step in content.get("steps", ()) if str(step.get("step", "awq")) not in STEPS
    ]
    return ", ".join(dict.fromkeys(unknown))


def _mapping(
    where: str, data: Any, known: Collection[str] | None = None, checked: Collection[str] | None = None
) -> dict[str, Any]:
    """A mapping without keys other than those that are known; values of `checked` ones, by default all, have types."""
    if not isinstance(data, dict):
        raise ProtquantError(f"{where}: a mapping is expected, not {data!r}")
    for key in data:
        if known is not None and key not in known:
            raise ProtquantError(f"{where}: unknown key {key!r}; {suggestion(str(key), known)}")
    for key in data.keys() & _KEYS.keys() & set((known or ()) if checked is None else checked):
        try:
            typed(_KEYS[key], data[key])
        except ValueError as error:
            raise ProtquantError(f"{where}: {key}: {error}") from None
    for kind in data.get("kinds", ()) if known and "kinds" in known else ():
        if kind not in KINDS:
            raise ProtquantError(f"{where}: unknown kind of site {kind!r}; {suggestion(str(kind), KINDS)}")
    return dict(data)


def _bits(where: str, data: Any) -> dict[str, int]:
    bits = _mapping(where, data, ("W", "A"))
    if not bits or not all(isinstance(value, int) for value in bits.values()):
        raise ProtquantError(f"{where}: numbers of bits are expected, such as {{W: 4, A: 8}}, not {data!r}")
    return bits
