"""Safe reading of JSON and YAML: no code is run, sizes are bounded, and types are checked.

All functions raise a ValueError that says what is wrong; the caller adds the name of the file.
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
"""Largest number of values of a YAML document; a recipe that names each site of ESMFold has at most half of it."""
_CORE = ("null", "bool", "int", "float", "str", "seq", "map")
_TAG = "tag:yaml.org,2002:"
# In YAML 1.1, 1e-3 is text; users expect a number.
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")

T = TypeVar("T")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C loader if PyYAML has it
    """YAML loader that accepts JSON types only: text, numbers, truth values, lists and mappings."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML expects a class attribute)
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
        If the text is not JSON, or nested too deep.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document, with a bound on the values that its aliases expand to.

    Raises
    ------
    ValueError
        If the text is not YAML, is nested too deep, has too many values, or a value that is not of a JSON type.
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
        raise ValueError(f"YAML that cannot be read: {error}") from None


def _check_keys(root: yaml.Node) -> None:
    """Refuse duplicate keys of a mapping. This runs before merge keys (`<<`) are expanded, as they may repeat keys."""
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen:  # reached before, through an alias
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
    """Convert plain data to a type, for instance a mapping to a dataclass.

    Raises
    ------
    ValueError
        If the data do not fit the type, or have unknown fields. The message names the field.
    """
    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # types can be hashed
        return adapter.validate_json(json.dumps([data]), strict=True)[0]
    except ValidationError as error:
        details = [(".".join(map(str, item["loc"][1:])), item["msg"]) for item in error.errors(include_url=False)]
        raise ValueError("; ".join(f"{place}: {what}" if place else what for place, what in details[:5])) from None
    except PydanticSchemaGenerationError as error:
        raise ValueError(f"{kind} is not a type of plain data") from error
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not plain data ({error})") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    # A list of the type, because pydantic does not apply `config` to a dataclass itself.
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid"))


def _check_size(text: str) -> None:
    """Check the depth and the number of values of a document with all aliases expanded, without expanding them."""
    sizes: dict[str | None, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            # A value that contains itself would be infinite.
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
            raise ValueError(f"more than {_MAX_VALUES} values, with all aliases expanded")
