"""Register functions as commands: groups become options of the command line, which read their values from text."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import is_dataclass
from functools import wraps
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from protquant.cli.app import PANELS, app, speaks_to_people
from protquant.errors import ProtquantError
from protquant.options import Argument, Parameter, kinds_of, parameters

__all__ = ["command", "command_line"]

_EMPTY = inspect.Parameter.empty
_NUMBERS = {int, float}


def command(
    name: str, group: typer.Typer = app, **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command.

    A parameter whose type is a group of options becomes the options of that group. Any other parameter that is
    `Annotated` with an `Option` becomes one option.

    Parameters
    ----------
    name : str
        Name of the command.
    group : Typer
        The program, or the group of commands, that gets the command.
    **defaults
        Defaults of the command line that differ from those of the library.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        flat = _flatten(function, defaults)
        panel = next((title for title, names in PANELS.items() if name in names), None)
        group.command(name, rich_help_panel=panel)(speaks_to_people(flat, name))
        return flat

    return register


def command_line(options: Any, *, always: Collection[str] = (), never: Collection[str] = ()) -> list[str]:
    """Return the words of a command line with these options; defaults are left out, except those in `always`."""
    words = []
    for each in parameters(type(options)):
        value = getattr(options, each.name)
        if each.name not in never and (each.name in always or value not in (None, (), each.default)):
            words += [_flags(each)[-1], _text(value)]
    return words


def _flatten(function: Callable[..., None], defaults: dict[str, Any]) -> Callable[..., None]:
    groups: dict[str, tuple[Any, list[Parameter]]] = {}
    flat, declared = list[inspect.Parameter](), dict[str, Parameter]()
    own = {each.name: each for each in parameters(function)}
    for name, given in inspect.signature(function).parameters.items():
        group: Any = given.annotation
        if isinstance(group, type) and is_dataclass(group):
            members = [each for each in parameters(group) if not each.option.python_only]
            groups[name] = (group, members)
        elif name in own:
            members = [own[name]]
        else:
            members, flat = [], [*flat, given.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        for each in members:
            changed = Parameter(each.name, each.type, defaults.get(each.name, each.default), each.option)
            declared[each.name] = changed
            flat.append(_option(changed))

    @wraps(function)
    def called(**values: Any) -> None:
        read = {name: _read(declared[name], value) if name in declared else value for name, value in values.items()}
        for name, (make, members) in groups.items():
            read[name] = make(**{each.name: read.pop(each.name) for each in members})
        function(**read)

    called.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]  # typer reads options from here
    called.__annotations__ = {each.name: each.annotation for each in flat}
    return called


def _option(each: Parameter) -> inspect.Parameter:
    """Return the parameter from which typer makes an option or argument."""
    option, kind, default = each.option, _type(each), each.default
    choices = [get_args(one) for one in kinds_of(each.type) if get_origin(one) is Literal]
    metavar = option.metavar or (f"[{'|'.join(choices[0])}]" if choices else None)
    notes = [option.help, " May be repeated." if get_origin(kind) is list else ""]
    notes.append(f"  [default: {option.none}]" if option.none else "")
    given: dict[str, Any] = {"help": "".join(notes), "metavar": metavar, "min": option.at_least}
    if isinstance(option, Argument):
        made = typer.Argument(**given)
    else:
        made = typer.Option(*(_flags(each) if kind is not bool or option.flags else ()), **given)
    if get_origin(kind) is list and default in (None, ()):
        default = None
    elif isinstance(default, tuple):
        default = list(default) if get_origin(kind) is list else _text(default) or None
    optional = kind | None if default is None else kind
    return inspect.Parameter(
        each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[optional, made]
    )


def _flags(each: Parameter) -> tuple[str, ...]:
    flags = each.option.flags
    return flags if any(flag.startswith("--") for flag in flags) else (*flags, f"--{each.name.replace('_', '-')}")


def _type(each: Parameter) -> Any:
    """Return the type on the command line; names and amounts are strings, which the function checks."""
    if each.option.taken_as:
        return each.option.taken_as
    if each.option.listed or each.option.read:
        return str
    kinds = [kind for kind in kinds_of(each.type) if kind is not NoneType]
    if any(get_origin(kind) is Literal for kind in kinds) or str in kinds:
        return str
    (kind,) = kinds if len(kinds) == 1 else [kind for kind in kinds if get_origin(kind) is None][:1]
    element = get_args(kind)[0] if get_origin(kind) else None
    return kind if element is None else list[element if element in _NUMBERS else str]  # type: ignore[misc]


def _read(each: Parameter, value: Any) -> Any:
    """Return the function's argument for a value from the command line."""
    option = each.option
    if option.read is not None:
        return option.read(value)
    if option.listed:
        return _listed(each, value)
    if isinstance(value, list) or (value is None and each.default == ()):
        nothing = None if NoneType in kinds_of(each.type) else each.default
        return tuple(value) if value else nothing
    return value


def _listed(each: Parameter, text: str | None) -> tuple[Any, ...] | None:
    if text is None:
        return None if NoneType in kinds_of(each.type) else each.default
    (sequence,) = (kind for kind in kinds_of(each.type) if kind is not NoneType)
    element = get_args(sequence)[0]
    try:
        return tuple(element(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise ProtquantError(f"{_flags(each)[-1]} {text!r}: give {each.option.listed}") from None


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
