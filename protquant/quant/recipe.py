"""Recipes: which site is written in which format, as data."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from protquant.errors import ProtquantError, suggestion
from protquant.files.plain_data import parse_yaml
from protquant.quant.assignments import Assignment
from protquant.quant.formats import format_from_config
from protquant.quant.patterns import Pattern
from protquant.quant.ranges import Calibration
from protquant.quant.shipped_recipes import available_recipes, recipe_text
from protquant.quant.steps import Step, step_from_config
from protquant.sites import KINDS, Site

__all__ = ["EXECUTIONS", "Recipe", "check_execution", "load_recipe"]

EXECUTIONS = ("simulate", "integer")


@dataclass
class Recipe:
    r"""What becomes of every site of a model.

    The format of a site is, in falling order: that of its exact name in `sites`; that of the last pattern in `sites`
    that matches it; float, if a pattern in `exclude` matches it; that of its kind in `kinds`; float.

    Attributes
    ----------
    calibration : Calibration
        How the ranges of activations are chosen.
    kinds : dict
        Format per kind of site (`protquant.sites`), such as `{"format": "uniform", "bits": 8}`; None leaves it in
        float.
    sites : dict
        Format per name, glob (`lm.layers.0.*`) or regular expression (`re:lm\.layers\.[01]\..*`, which matches
        the whole name). A pattern that matches no site is an error.
    exclude : list of str
        Globs or regular expressions of what stays in float whatever its kind; may match nothing. By default the
        heads, as in Peng et al. 2023: no part of what is folded, and small.
    steps : list of dict
        What is done beside, such as `{"step": "smoothquant", "alpha": 0.5}` (`protquant.quant.steps`).
    propagate : str
        What steps that go through the model layer by layer feed the next layers with: the outputs of the `float` ones
        or of those `quantized` before, as GPTQ does. The first block of a chain is always fed by the float model: so
        the folding trunk does not hear of what became of the language model before it.
    """

    name: str = "custom"
    description: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    kinds: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, Any] = field(default_factory=dict)
    exclude: list[str] = field(default_factory=lambda: ["*_head.*"])
    steps: list[dict[str, Any]] = field(default_factory=list)
    propagate: str = "float"
    execution: str = "simulate"

    def __post_init__(self) -> None:
        for kind, config in self.kinds.items():
            if kind not in KINDS:
                raise ProtquantError(f"recipe {self.name}: unknown kind of site {kind!r}; {suggestion(kind, KINDS)}")
            self._check_format(f"kinds.{kind}", config)
        for pattern, config in self.sites.items():
            self._check_format(f"sites.{pattern}", config)
        if self.propagate not in ("float", "quantized"):
            raise ProtquantError(f"recipe {self.name}: propagate is float or quantized, not {self.propagate!r}")
        check_execution(self.execution, f"recipe {self.name}")
        self.load_steps()
        for pattern in (*self.sites, *self.exclude):
            Pattern(f"recipe {self.name}", pattern)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Recipe":
        """Recipe of plain data.

        Raises
        ------
        ProtquantError
            For a key, kind, format or setting that is not known.
        """
        name = str(data.get("name") or "custom")
        settings = dict(data)
        for key in ("name", "description"):
            if settings.get(key) is None:  # a key that is there without a value
                settings.pop(key, None)
            elif not isinstance(settings[key], str | int | float):
                raise ProtquantError(f"{key} is text, not {settings[key]!r}")
            else:
                settings[key] = str(settings[key])
        _check_keys(f"recipe {name}", settings, cls)
        calibration = settings.get("calibration")
        if calibration is not None and not isinstance(calibration, Mapping | Calibration):
            raise ProtquantError(f"recipe {name}: calibration is a mapping, such as range: minmax, not {calibration!r}")
        if isinstance(calibration, Mapping):
            _check_keys(f"recipe {name}: calibration", calibration, Calibration)
            settings["calibration"] = Calibration(**calibration)
        for key in ("kinds", "sites"):
            if not isinstance(settings.get(key) or {}, Mapping):
                raise ProtquantError(f"recipe {name}: {key} is a mapping to formats, not {settings[key]!r}")
            if other := [each for each in settings.get(key) or () if not isinstance(each, str)]:
                raise ProtquantError(f"recipe {name}: {key}: names are text, and not {other[0]!r}")
        exclude = settings.get("exclude")
        # A string would be taken for its letters, and "*" among them leaves everything in float.
        if exclude is not None and not _is_list(exclude, str):
            raise ProtquantError(f"recipe {name}: exclude is a list of patterns, not {exclude!r}")
        if not _is_list(settings.get("steps") or [], object):
            raise ProtquantError(f"recipe {name}: steps is a list of mappings, not {settings['steps']!r}")
        return cls(**{key: value for key, value in settings.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` takes."""
        return asdict(self)

    @property
    def is_float(self) -> bool:
        """Whether the recipe leaves every site as it is."""
        return not any([*self.kinds.values(), *self.sites.values(), *self.steps])

    def fingerprint(self) -> str:
        """SHA-256 of all settings, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def load_steps(self) -> list[Step]:
        """The steps, ready to be called.

        Raises
        ------
        ProtquantError
            For a step or a setting that is not known.
        """
        try:
            return [step_from_config(config) for config in self.steps]
        except ProtquantError as error:
            raise ProtquantError(f"recipe {self.name}: steps: {error}") from None

    def assign(self, sites: Iterable[Site]) -> list[Assignment]:
        """Return the format of each site, in order, and what in the recipe decided it.

        Raises
        ------
        ProtquantError
            Where a name or pattern in `sites` matches none.
        """
        sites = list(sites)
        names = [site.name for site in sites]
        patterns = {pattern: Pattern(f"recipe {self.name}", pattern) for pattern in self.sites}
        for pattern, regex in patterns.items():
            if not any(regex.fullmatch(name) for name in names):
                raise ProtquantError(
                    f"recipe {self.name}: {pattern!r} in sites matches no site of the model; "
                    f"{suggestion(pattern, names)}"
                )
        excluded = [(pattern, Pattern(f"recipe {self.name}", pattern)) for pattern in self.exclude]
        return [self._assign(site, patterns, excluded) for site in sites]

    def _assign(self, site: Site, patterns: Mapping[str, Pattern], excluded: list[tuple[str, Pattern]]) -> Assignment:
        if site.name in self.sites:
            return Assignment(site, format_from_config(self.sites[site.name]), "by name")
        for pattern, regex in reversed(list(patterns.items())):
            if regex.fullmatch(site.name):
                return Assignment(site, format_from_config(self.sites[pattern]), f"by pattern {pattern}")
        for pattern, regex in excluded:
            if regex.fullmatch(site.name):
                return Assignment(site, None, f"excluded by {pattern}", excluded=True)
        if site.kind in self.kinds:
            return Assignment(site, format_from_config(self.kinds[site.kind]), "by kind")
        # Nothing reads a residual but what has sites of its own: in float it is no activation to speak of.
        return Assignment(site, None, "kind not in recipe", excluded=site.kind == "residual")

    def _check_format(self, where: str, config: Mapping[str, Any] | None) -> None:
        try:
            format_from_config(config)
        except ProtquantError as error:
            raise ProtquantError(f"recipe {self.name}: {where}: {error}") from None


def _check_keys(where: str, data: Mapping[str, Any], cls: type) -> None:
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise ProtquantError(f"{where}: unknown key {key!r}; {suggestion(str(key), known)}")


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, kind) for each in value)


def check_execution(execution: object, where: str) -> None:
    """Raise ProtquantError unless `execution` is one of EXECUTIONS; `where` is for the message."""
    if execution not in EXECUTIONS:
        raise ProtquantError(f"{where}: execution is {' or '.join(EXECUTIONS)}, not {execution!r}")


def load_recipe(source: "str | Path | Mapping[str, Any] | DictConfig | Recipe") -> Recipe:
    """Recipe of a shipped name, a YAML file, or data.

    Raises
    ------
    ProtquantError
        Where there is no such recipe or file, or its content is no recipe.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, DictConfig):
        source = _plain(source, "recipe")
    if isinstance(source, Mapping):
        return Recipe.from_dict(source)
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ProtquantError(f"recipe file {path} does not exist")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProtquantError(f"recipe file {path} cannot be read as text ({error})") from error
        name = path.stem
    else:
        name = str(source)
        if name not in available_recipes():
            raise ProtquantError(f"no recipe {name!r}, nor is it a .yaml file; {suggestion(name, available_recipes())}")
        text = recipe_text(name)
    try:
        data = parse_yaml(text)
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise ValueError("a mapping is expected, with keys such as name and kinds")
        return Recipe.from_dict({"name": name, **data})
    except ValueError as error:  # a ProtquantError, too
        raise ProtquantError(f"recipe {source}: {str(error).removeprefix('recipe ')}") from None


def _plain(config: DictConfig, where: str) -> dict[str, Any]:
    try:
        data = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ProtquantError(f"recipe {where}: {error}") from None
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}
