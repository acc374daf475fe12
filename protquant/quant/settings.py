"""Settings of recipes: dataclasses that pydantic checks, and registries of the classes that recipes name.

A class declares its settings once, as fields with types and bounds. Values made in Python and values read from files
get the same checks and messages, and `json_schema` describes them for editors.
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
    """Base of dataclasses whose fields are settings; every new value is checked.

    A subclass with further checks overrides `__post_init__`, calls `super().__post_init__()` first, and raises
    `ProtquantError`.
    """

    def __post_init__(self) -> None:
        self._check(self.title())

    def _check(self, where: str) -> None:
        for name, value in _checked(type(self), vars(self), where).items():
            object.__setattr__(self, name, value)

    @classmethod
    def title(cls) -> str:
        """Return the beginning of error messages."""
        return cls.__name__.lower()

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Return an instance made from a mapping from settings to values; an instance is returned unchanged.

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
    """Base of settings whose class a recipe chooses by its registered name.

    Attributes
    ----------
    key : str
        The key in a recipe that holds the name, such as `format`.
    registry : dict
        The registered classes, by name.
    name : str
        Name of the class in recipes.
    """

    key: ClassVar[str]
    registry: ClassVar[dict[str, type[Any]]]
    name: ClassVar[str]

    @classmethod
    def title(cls) -> str:
        return f"{cls.key} {cls.name!r}"

    @classmethod
    def register(cls, name: str) -> Callable[[_Class], _Class]:
        """Return a class decorator that registers a class as `name`.

        Raises
        ------
        ProtquantError
            Raised by the decorator, if another class has the name.
        """

        def register(known: _Class) -> _Class:
            known.name = name  # type: ignore[attr-defined]
            enter(cls.registry, name, known, cls.key)
            return known

        return register

    @classmethod
    def from_config(cls, config: object) -> Self:
        """Return an instance made from data such as `{"format": "uniform", "bits": 8}`; return an instance unchanged.

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
        instance = parse(named, {key: value for key, value in config.items() if key != cls.key}, named.title())
        object.__setattr__(instance, "_given", copy.deepcopy(dict(config)))
        return instance

    def to_config(self) -> dict[str, Any]:
        """Return all settings as plain data for `from_config`."""
        return {self.key: self.name, **asdict(self)}  # type: ignore[call-overload]

    def as_given(self) -> dict[str, Any]:
        """Return the plain data that it was made from, or for an instance made in Python its non-default settings.

        Bits and granularity are always included.
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
    """Return an instance of a class of settings, made from plain data; error messages begin with `where`.

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
    except (TypeError, ValueError, OverflowError) as error:  # raised by a plug-in
        raise ProtquantError(f"{where}: {error}") from error


def json_schema(cls: type[Settings]) -> dict[str, Any]:
    """Return the JSON schema of a class of settings, for editors, without the key that names the class."""
    schema = _model(cls).model_json_schema()  # type: ignore[arg-type]  # classes can be hashed
    return {**schema, "description": (cls.__doc__ or "").split("\n")[0]}


def _named_schema(cls: type[Named]) -> dict[str, Any]:
    schema = json_schema(cls)
    name = {"const": cls.name, "description": schema["description"]}
    return {**schema, "properties": {cls.key: name, **schema["properties"]}, "required": [cls.key]}


def _checked(cls: type[Settings], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the checked values of settings; lists become tuples if the field is a tuple."""
    model = _model(cls)  # type: ignore[arg-type]  # classes can be hashed
    try:
        checked = model.model_validate({k: v for k, v in values.items() if not k.startswith("_")})
    except ValidationError as error:
        raise ProtquantError(message(model, error.errors(include_url=False)[0], where)) from None
    # If the checked value equals the given one, return the given one: 1 must not be written as 1.0.
    found = {name: getattr(checked, name) for name in checked.model_fields_set}
    return {name: values[name] if found[name] == values[name] else found[name] for name in values if name in found}


@cache
def _model(cls: Any) -> type[BaseModel]:
    """Return the pydantic model that checks the fields of a dataclass strictly."""
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
    """Return a list as a tuple, and a single text as a tuple of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value
