"""Recipes: data that assign formats to sites, and name the steps that run before."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, Field

from protquant.errors import ProtquantError, suggestion
from protquant.files.plain_data import parse_yaml
from protquant.quant.assignments import Assignment
from protquant.quant.formats import Format
from protquant.quant.patterns import Pattern, PatternText
from protquant.quant.ranges import Calibration
from protquant.quant.settings import Settings, json_schema, parse
from protquant.quant.shipped_recipes import available_recipes, recipe_text
from protquant.quant.steps import Step
from protquant.sites import Kind, Site

__all__ = ["EXECUTIONS", "Recipe", "check_execution", "load_recipe", "recipe_schema"]

EXECUTIONS = ("simulate", "integer")


def _text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Recipe(Settings):
    r"""Formats of the sites of a model, and the steps that fit the model to them.

    The first rule that applies decides the format of a site: its exact name in `sites`; the last pattern in `sites`
    that matches it; float if a pattern in `exclude` matches it; its kind in `kinds`; float.

    Formats and steps may be given as plain data, as in files.

    Attributes
    ----------
    calibration : Calibration
        Rule that chooses the ranges of activations.
    kinds : dict
        Format per kind of site (`protquant.sites`), such as `{"format": "uniform", "bits": 8}`; None leaves it in
        float.
    sites : dict
        Format per name, glob (`lm.layers.0.*`) or regular expression (`re:lm\.layers\.[01]\..*`, which matches
        the whole name). A pattern that matches no site is an error.
    exclude : list of str
        Globs or regular expressions of sites that stay in float whatever their kind; they may match nothing. By default
        the heads, as in Peng et al. 2023: they are small, and folding does not use them.
    steps : list of Step
        Steps to run, such as `{"step": "smoothquant", "alpha": 0.5}` (`protquant.quant.steps`).
    propagate : str
        Inputs of a block in steps that go through the model block by block: outputs of the `float` blocks before it, or
        of the `quantized` ones, as in GPTQ. The first block of a chain always gets inputs of the float model: the
        folding trunk does not see the quantization of the language model.
    execution : str
        `simulate`: quantized values in float arithmetic. `integer`: integer arithmetic where it is implemented.

    Raises
    ------
    ProtquantError
        For a key, kind, format, step or setting that is not known, or cannot have its value.
    """

    name: Annotated[str, BeforeValidator(_text)] = "custom"
    description: Annotated[str, BeforeValidator(_text)] = ""
    calibration: Annotated[Calibration, Field(description="a mapping, such as range: minmax")] = field(
        default_factory=Calibration
    )
    kinds: Annotated[dict[Kind, Format | None], Field(description="a mapping from kinds of sites to formats")] = field(
        default_factory=dict
    )
    sites: Annotated[dict[PatternText, Format | None], Field(description="a mapping from names to formats")] = field(
        default_factory=dict
    )
    exclude: Annotated[list[PatternText], BeforeValidator(_list), Field(description="a list of patterns")] = field(
        default_factory=lambda: ["*_head.*"]
    )
    steps: Annotated[list[Step], BeforeValidator(_list), Field(description="a list of mappings")] = field(
        default_factory=list
    )
    propagate: Literal["float", "quantized"] = "float"
    execution: Literal["simulate", "integer"] = "simulate"

    def __post_init__(self) -> None:
        self._check(f"recipe {self.name}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Recipe":
        """Return the recipe that plain data describe; a key whose value is None gets the default.

        Raises
        ------
        ProtquantError
            For a key, kind, format, step or setting that is not known, or cannot have its value.
        """
        settings = {key: value for key, value in data.items() if value is not None}
        name = settings.get("name", cls.name)
        return parse(cls, settings, f"recipe {name if isinstance(name, str | int | float) else cls.name}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `from_dict`. Formats and steps are written as the caller gave them."""
        formats = {
            key: {name: format_ and format_.as_given() for name, format_ in getattr(self, key).items()}
            for key in ("kinds", "sites")
        }
        plain = {"calibration": asdict(self.calibration), **formats, "exclude": list(self.exclude)}
        plain["steps"] = [step.as_given() for step in self.steps]
        return {f.name: plain.get(f.name, getattr(self, f.name)) for f in fields(self)}

    @property
    def is_float(self) -> bool:
        """Whether the recipe quantizes no site and has no step."""
        return not any([*self.kinds.values(), *self.sites.values(), *self.steps])

    def fingerprint(self) -> str:
        """SHA-256 of all settings, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def assign(self, sites: Iterable[Site]) -> list[Assignment]:
        """Return the format of each site, in order, with the entry of the recipe that decided it.

        Raises
        ------
        ProtquantError
            If a name or pattern in `sites` matches no site.
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
            return Assignment(site, self.sites[site.name], "by name")
        for pattern, regex in reversed(list(patterns.items())):
            if regex.fullmatch(site.name):
                return Assignment(site, self.sites[pattern], f"by pattern {pattern}")
        for pattern, regex in excluded:
            if regex.fullmatch(site.name):
                return Assignment(site, None, f"excluded by {pattern}", excluded=True)
        if site.kind in self.kinds:
            return Assignment(site, self.kinds[site.kind], "by kind")
        # Readers of a residual have sites of their own, so a residual in float is not counted as an activation.
        return Assignment(site, None, "kind not in recipe", excluded=site.kind == "residual")


def check_execution(execution: object, where: str) -> None:
    """Raise ProtquantError unless `execution` is one of EXECUTIONS; the message begins with `where`."""
    if execution not in EXECUTIONS:
        raise ProtquantError(f"{where}: execution is {' or '.join(EXECUTIONS)}, not {execution!r}")


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, for editors, with all registered formats and steps."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **json_schema(Recipe),
        "title": "protquant recipe",
    }


def load_recipe(source: "str | Path | Mapping[str, Any] | DictConfig | Recipe") -> Recipe:
    """Return the recipe of a shipped name, a YAML file, or plain data.

    Raises
    ------
    ProtquantError
        If there is no such recipe or file, or the content is not a recipe.
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
