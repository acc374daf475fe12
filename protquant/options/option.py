"""One declaration of each option, for functions, their docstrings, commands and Hydra's configs.

A group of options is a frozen dataclass whose fields are `Annotated` with an `Option`. `takes` decorates a function of
a group: callers give the fields as arguments, and the function receives them as one object.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from textwrap import fill
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

__all__ = ["Argument", "Option", "Parameter", "kinds_of", "parameters", "takes"]

_Arguments = ParamSpec("_Arguments")
_Group = TypeVar("_Group")
_Result = TypeVar("_Result")
_WIDTH = 116


@dataclass(frozen=True)
class Option:
    """The help text of a parameter, and its form on the command line.

    Attributes
    ----------
    help : str
        Text that `--help`, docstrings and the help of Hydra show.
    flags : tuple of str
        Names on the command line. If none of them is long, `--name-of-the-parameter` is added.
    none : str
        Meaning of the default None.
    at_least : int, optional
        Smallest number that the command line takes.
    metavar : str, optional
        Placeholder for the value on the command line.
    listed : str
        Description of a list that the command line takes as one text with commas. Without it, the option of a sequence
        may be repeated.
    read : callable, optional
        Converts the text on the command line to the value.
    taken_as : type, optional
        Type on the command line, if functions accept other types too.
    python_only : bool
        Whether the command line does not have this option.
    """

    help: str
    flags: tuple[str, ...] = ()
    none: str = ""
    at_least: int | None = None
    metavar: str | None = None
    listed: str = ""
    read: Callable[[str], Any] | None = None
    taken_as: type | None = None
    python_only: bool = False


class Argument(Option):
    """An option that the command line takes by position, without a flag."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that an `Option` declares; without a default, `default` is `inspect.Parameter.empty`."""

    name: str
    type: Any
    default: Any
    option: Option


def parameters(of: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a group or function that have an `Option`."""
    found = []
    for each in inspect.signature(of).parameters.values():
        if get_origin(each.annotation) is Annotated:
            kind, *notes = get_args(each.annotation)
            found += [Parameter(each.name, kind, each.default, note) for note in notes if isinstance(note, Option)]
    return found


def kinds_of(annotation: Any) -> list[Any]:
    """Return the members of a union, or a list with the type itself."""
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def takes(
    group: Callable[_Arguments, _Group],
) -> Callable[[Callable[[_Group], _Result]], Callable[_Arguments, _Result]]:
    """Decorate a function of a group so that its signature and its docstring have the parameters of the group."""

    def decorate(function: Callable[[_Group], _Result]) -> Callable[_Arguments, _Result]:
        result = inspect.signature(function).return_annotation
        signature = inspect.signature(group).replace(return_annotation=result)
        declared = parameters(group)
        paths = [each.name for each in declared if Path in (kinds := kinds_of(each.type)) and str not in kinds]

        @wraps(function)
        def called(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            given = signature.bind(*args, **kwargs)
            for name in paths:
                if isinstance(given.arguments.get(name), str):
                    given.arguments[name] = Path(given.arguments[name])
            return function(group(*given.args, **given.kwargs))

        called.__signature__ = signature  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        called.__annotations__["return"] = result
        called.__doc__ = _with_parameters(function.__doc__ or "", declared)
        return called

    return decorate


def _with_parameters(docstring: str, declared: Sequence[Parameter]) -> str:
    """Return a docstring with a section on the parameters before its other sections."""
    entries = "".join(f"{each.name} : {_heading(each)}\n{_text(each.option)}\n" for each in declared)
    text = inspect.cleandoc(docstring)
    later = re.search(r"^\w+\n-{3,}$", text, re.MULTILINE)
    place = later.start() if later else len(text)
    before, after = text[:place].rstrip(), text[place:]
    return f"{before}\n\nParameters\n----------\n{entries}" + (f"\n{after}" if after else "")


def _heading(each: Parameter) -> str:
    kind = " or ".join(_name(kind) for kind in kinds_of(each.type) if kind is not NoneType)
    if each.default is inspect.Parameter.empty:
        return kind
    if each.default is None or each.default == ():
        return f"{kind}, optional"
    if isinstance(each.default, tuple):
        return f"{kind}, default ({', '.join(map(str, each.default))})"
    return f"{kind}, default {each.default!r}"


def _text(option: Option) -> str:
    text = f"{option.help} By default {option.none}." if option.none else option.help
    return fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _name(kind: Any) -> str:
    """Return the name of a type for docstrings."""
    if get_origin(kind) is Literal:
        return "{" + ", ".join(map(repr, get_args(kind))) + "}"
    if isinstance(kind, ForwardRef):
        return kind.__forward_arg__.rpartition(".")[2]
    if get_origin(kind) is not None:
        name = get_origin(kind).__name__.lower()
        if name != "sequence":
            return name
        return f"sequence of {' or '.join(_name(each) for each in kinds_of(get_args(kind)[0]))}"
    return kind.__name__
