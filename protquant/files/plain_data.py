"""Plain data that others wrote, as JSON or YAML: read without running anything, within bounds, and of the right types.

All functions raise a ValueError that says what is wrong; who calls them knows the file, and says that too.
"""

import json
import re
from functools import cache
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

__all__ = ["parse_json", "parse_yaml", "typed"]

_MAX_DEPTH = 64
_MAX_VALUES = 200_000
"""Values of a YAML document; a recipe that names each site of ESMFold has half of this at most."""
_CORE = ("null", "bool", "int", "float", "str", "seq", "map")
_TAG = "tag:yaml.org,2002:"
# YAML 1.1 takes 1e-3 for text; everyone else for a number.
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")

T = TypeVar("T")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C where PyYAML has it
    """Texts, numbers, truth values, lists and mappings, as JSON has them."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's way)
        first: [(tag, regex) for tag, regex in resolvers if tag.removeprefix(_TAG) in (*_CORE, "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in _CORE
    }


_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON document.

    Raises
    ------
    ValueError
        If it is none, or nested too deep.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document, in which aliases may not make much of little.

    Raises
    ------
    ValueError
        If it is none, nested too deep, has too many values, or any that JSON does not have.
    """
    try:
        _check_size(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None
    except (RecursionError, OverflowError) as error:
        raise ValueError(f"not YAML that can be read: {error}") from None


def _check_keys(root: yaml.Node) -> None:
    """Refuse a key that stands twice in a mapping, before what is merged into it is there, too."""
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = set()
            for key, value in node.value:
                left += [key, value]
                if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge":
                    if key.value in keys:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"{key.value!r} is there twice", key.start_mark
                        )
                    keys.add(key.value)


def typed(kind: type[T], data: Any) -> T:
    """Return plain data as a value of a type, such as a dataclass with its fields in a mapping.

    Raises
    ------
    ValueError
        If the data do not fit, or have more than the type: names the field.
    """
    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # types can be hashed
        return adapter.validate_json(json.dumps([data]), strict=True)[0]
    except ValidationError as error:
        details = [(".".join(map(str, each["loc"][1:])), each["msg"]) for each in error.errors(include_url=False)]
        raise ValueError("; ".join(f"{place}: {what}" if place else what for place, what in details[:5])) from None
    except PydanticSchemaGenerationError as error:
        raise ValueError(f"{kind} is no type of plain data") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not plain data ({error})") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    # Of a list, because a dataclass by itself takes no settings of others.
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid"))


def _check_size(text: str) -> None:
    """Count the values that there are when aliases stand for what they name; nothing is built for that."""
    sizes: dict[str | None, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            # What contains itself has no size yet, and no end.
            inside_itself = any(anchor == event.anchor for anchor, _ in open_nodes)
            total += _MAX_VALUES if inside_itself else sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes[anchor] = total - before
        if len(open_nodes) > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
        if total > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} values, with what aliases stand for")
