"""Settings that recipes give: dataclasses that pydantic checks, and registries of those that a recipe names.

A class declares its settings once, as fields with types and bounds. Whoever makes one, from Python or from a file, gets
the same checks and messages, and `json_schema` tells editors the same.
"""

import copy
import typing
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model
from pydantic_core import core_schema

from protquant.errors import ProtquantError, suggestion
from protquant.quant.plugins import load_plugins
from protquant.quant.registry import enter
from protquant.quant.setting_messages import message, short

__all__ = ["Count", "Named", "Natural", "Rate", "Settings", "Share", "json_schema", "parse"]

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]

_Class = TypeVar("_Class", bound=type)
_Settings = TypeVar("_Settings", bound="Settings")


class Settings:
    """Base of the dataclasses whose fields are settings; a value is checked whenever one is made.

    A subclass that checks more overrides `__post_init__`, calls this one first, and raises `ProtquantError`.
    """

    def __post_init__(self) -> None:
        self._check(self.title())

    def _check(self, where: str) -> None:
        for name, value in _checked(type(self), vars(self), where).items():
            object.__setattr__(self, name, value)

    @classmethod
    def title(cls) -> str:
        """Return what messages begin with."""
        return cls.__name__.lower()

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Return the value of plain data, a mapping from settings to values; a value of the class stays as it is.

        Raises
        ------
        ProtquantError
            For a setting that is not known, or that cannot have its value.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping):
            raise ProtquantError(f"{cls.title()} is a mapping, not {short(config)}")
        return parse(cls, config, cls.title())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.from_config)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> dict[str, Any]:
        return json_schema(cls)


class Named(Settings, ABC):
    """Settings that a recipe chooses by a name among those that are registered.

    Attributes
    ----------
    key : str
        Key of the name in a recipe, such as `format`.
    registry : dict
        The registered classes, by name.
    name : str
        What recipes call the class.
    """

    key: ClassVar[str]
    registry: ClassVar[dict[str, type[Any]]]
    name: ClassVar[str]

    @classmethod
    def title(cls) -> str:
        return f"{cls.key} {cls.name!r}"

    @classmethod
    def register(cls, name: str) -> Callable[[_Class], _Class]:
        """Return a class decorator that makes a class known to recipes as `name`.

        Raises
        ------
        ProtquantError
            By the decorator, if another class has the name.
        """

        def register(known: _Class) -> _Class:
            known.name = name  # type: ignore[attr-defined]
            enter(cls.registry, name, known, cls.key)
            return known

        return register

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Return the value of plain data such as `{"format": "uniform", "bits": 8}`; a value stays as it is.

        Raises
        ------
        ProtquantError
            For a name or a setting that is not known, or a value that a setting cannot have.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping) or cls.key not in config:
            raise ProtquantError(f"a {cls.key} is a mapping with the key {cls.key!r}, not {short(config)}")
        name = str(config[cls.key])
        load_plugins()
        if name not in cls.registry:
            raise ProtquantError(f"unknown {cls.key} {name!r}; {suggestion(name, sorted(cls.registry))}")
        named = cls.registry[name]
        if not issubclass(named, cls):
            raise ProtquantError(f"{cls.key} {name!r} is no {cls.__name__}")
        made = parse(named, {key: value for key, value in config.items() if key != cls.key}, named.title())
        object.__setattr__(made, "_given", copy.deepcopy(dict(config)))
        return made

    def to_config(self) -> dict[str, Any]:
        """Return all settings as plain data, which `from_config` takes."""
        return {self.key: self.name, **asdict(self)}  # type: ignore[call-overload]

    def as_given(self) -> dict[str, Any]:
        """Return the plain data that it was made of; if it was made in Python, what differs from the defaults.

        Widths and granularities are said in any case.
        """
        if (given := vars(self).get("_given")) is not None:
            return copy.deepcopy(given)
        defaults = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        shown = (self.key, "bits", "granularity")
        return {k: v for k, v in self.to_config().items() if k in shown or v != defaults[k]}

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> dict[str, Any]:
        load_plugins()
        return {"type": "object", "oneOf": [_named_schema(each) for _, each in sorted(cls.registry.items())]}


def parse(cls: type[_Settings], data: Mapping[Any, Any], where: str) -> _Settings:
    """Return the value of a class of settings, made of plain data; `where` begins messages.

    Raises
    ------
    ProtquantError
        For a setting that is not known, or a value that a setting cannot have.
    """
    checked = _checked(cls, {str(key): value for key, value in data.items()}, where)
    try:
        return cls(**checked)
    except ProtquantError:
        raise
    except (TypeError, ValueError, OverflowError) as error:  # of a plug-in
        raise ProtquantError(f"{where}: {error}") from error


def json_schema(cls: type[Settings]) -> dict[str, Any]:
    """Return the JSON schema of a class of settings, for editors; a named one has no name in it."""
    schema = _model(cls).model_json_schema()  # type: ignore[arg-type]  # classes can be hashed
    return {**schema, "description": (cls.__doc__ or "").split("\n")[0]}


def _named_schema(cls: type[Named]) -> dict[str, Any]:
    schema = json_schema(cls)
    name = {"const": cls.name, "description": schema["description"]}
    return {**schema, "properties": {cls.key: name, **schema["properties"]}, "required": [cls.key]}


def _checked(cls: type[Settings], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values of settings: lists as tuples where these are declared, all else as it was given."""
    model = _model(cls)  # type: ignore[arg-type]  # classes can be hashed
    try:
        checked = model.model_validate({k: v for k, v in values.items() if not k.startswith("_")})
    except ValidationError as error:
        raise ProtquantError(message(model, error.errors(include_url=False)[0], where)) from None
    # 1 is equal to 1.0, and is written as it was given.
    found = {name: getattr(checked, name) for name in checked.model_fields_set}
    return {name: values[name] if found[name] == values[name] else found[name] for name in values if name in found}


@cache
def _model(cls: Any) -> type[BaseModel]:
    """Return the model by which pydantic checks a dataclass: its fields, strictly."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise ProtquantError(
            f"{cls.title()}: {cls.__name__} declares its settings by a name that is not there when it runs ({error});"
            " import it outside of TYPE_CHECKING"
        ) from error
    declared: dict[str, Any] = {}
    for field in fields(cls):
        hint = hints[field.name]
        bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        if typing.get_origin(bare) is tuple:
            hint = Annotated[hint, BeforeValidator(_as_tuple, json_schema_input_type=hint | str)]
        given: Any = field.default if field.default_factory is MISSING else Field(default_factory=field.default_factory)
        declared[field.name] = (hint, ... if given is MISSING else given)
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return create_model(cls.__name__, __config__=config, **declared)


def _as_tuple(value: object) -> object:
    """Return the tuple of a list, and of one text that stands for a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value
