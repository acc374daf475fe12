"""Seeded changes that make valid files malformed: of bytes, of lines, of the values in JSON and YAML documents."""

import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

__all__ = ["BAD_VALUES", "mutate", "mutate_document", "mutate_json"]

Mutation = Callable[[bytes, Random], bytes]

_HUGE = (b"9" * 30, b"-1", b"1e308", b"nan", b"inf", b"0", b"99999999999", b"-2147483649", b"0x10", b"1_0", b"")

BAD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2.5, 10**12, 2**63, -(2**70), 1e308, float("nan"), float("inf")),
    *("", "x", "../../../etc/passwd", "/dev/zero", "\x00", "é" * 50, "re:(", "${oc.env:HOME}", "*", "nan", "float32"),
    *([], {}, [None], [[]], {"": None}, [1] * 50, {"format": "uniform"}, {"format": "uniform", "bits": -1}),
)
"""Values that a setting hardly expects."""


def _flip_bits(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 20)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut_off(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _cut_out(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 7, 80, 1000)) :]


def _insert(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    piece = random.choice((b"\x00", b"\x00" * 100, b"\xff\xfe", b"\x1a", b"\r", b"\n\n\n", b"\x80\x81", b"A" * 5000))
    return data[:start] + piece + data[start:]


def _of_lines(change: Callable[[list[bytes], int, Random], None]) -> Mutation:
    def mutation(data: bytes, random: Random) -> bytes:
        lines = data.split(b"\n")
        change(lines, random.randrange(len(lines)), random)
        return b"\n".join(lines)

    return mutation


def _double_line(lines: list[bytes], place: int, random: Random) -> None:
    copies = random.choice((1, 1, 2, 500))
    lines[place:place] = [lines[place]] * min(copies, 2**20 // (len(lines[place]) + 1))


def _drop_line(lines: list[bytes], place: int, random: Random) -> None:
    del lines[place : place + random.choice((1, 1, 3, 30))]


def _swap_lines(lines: list[bytes], place: int, random: Random) -> None:
    other = random.randrange(len(lines))
    lines[place], lines[other] = lines[other], lines[place]


def _swap_columns(lines: list[bytes], place: int, random: Random) -> None:
    words = lines[place].split(b" ")
    random.shuffle(words)
    lines[place] = b" ".join(words)


def _shift_columns(lines: list[bytes], place: int, random: Random) -> None:
    at = random.randrange(len(lines[place]) + 1)
    lines[place] = lines[place][:at] + b" " * random.choice((1, 3)) + lines[place][at:]


def _change_number(lines: list[bytes], place: int, random: Random) -> None:
    words = lines[place].split(b" ")
    numbers = [index for index, word in enumerate(words) if word[-1:].isdigit()]
    if numbers:
        words[random.choice(numbers)] = random.choice(_HUGE)
    lines[place] = b" ".join(words)


def _encode(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")))


def _end_lines_otherwise(data: bytes, random: Random) -> bytes:
    return data.replace(b"\n", random.choice((b"\r\n", b"\r", b"\x0b", "\u2028".encode())))


def _pack(data: bytes, random: Random) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return random.choice((packed, packed[: random.randrange(len(packed))], _flip_bits(packed, random), packed * 2))


def _replace_by_noise(data: bytes, random: Random) -> bytes:
    return random.choice((b"", b"\x00" * 64, random.randbytes(200), data[::-1]))


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip_bits, _flip_bits, _cut_off, _cut_out, _insert, _encode, _end_lines_otherwise, _pack, _replace_by_noise),
    *map(_of_lines, (_double_line, _drop_line, _swap_lines, _swap_columns, _shift_columns)),
    *map(_of_lines, (_change_number, _change_number, _change_number)),
)


def mutate(data: bytes, random: Random) -> bytes:
    """Return the bytes with one to three changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(_MUTATIONS)(data, random)
    return data


def mutate_document(document: Any, random: Random) -> Any:
    """Return a JSON-like value with one value in it replaced, removed, doubled or renamed; the argument is changed."""
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return random.choice(BAD_VALUES)
    container, key = random.choice(places)
    action = random.choice(("replace", "replace", "replace", "scale", "remove", "rename", "borrow"))
    if action == "scale" and isinstance(container[key], int | float):
        container[key] = container[key] * random.choice((-1, 2, 10**6, 10**12, 0.5))
    elif action == "remove":
        del container[key]
    elif action == "rename" and isinstance(container, dict):
        container[random.choice(("", "x", str(key).upper(), f"{key} "))] = container.pop(key)
    elif action == "borrow":
        other, its_key = random.choice(places)
        container[key] = json.loads(json.dumps(other[its_key]))
    else:
        container[key] = random.choice(BAD_VALUES)
    return document


def mutate_json(data: bytes, random: Random) -> bytes:
    """Return a JSON document with one changed value; bytes that are no JSON are changed as bytes."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate(data, random)
    return json.dumps(mutate_document(document, random)).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            _collect(value[key], places)
