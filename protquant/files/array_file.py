"""Arrays and plain data in one safetensors file; a damaged file is refused."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = ["decode_arrays", "encode_arrays"]

_LAYOUT = "protquant-arrays-1"


def encode_arrays(key: str, arrays: Mapping[str, NDArray[Any]], facts: Any) -> bytes:
    """Return the content of a file with arrays and facts.

    Parameters
    ----------
    key : str
        Key of the file; `decode_arrays` checks it.
    arrays : mapping of str to array
        Arrays of numbers.
    facts : object
        Values of JSON types; NaN and infinities are allowed.
    """
    from safetensors.numpy import save  # noqa: PLC0415 (it takes time to import)

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    document = json.dumps(facts)
    header = {"layout": _LAYOUT, "key": key, "document": document, "sha256": _digest(document, whole)}
    content: bytes = save(whole, header)
    return content


def decode_arrays(content: bytes, key: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return the arrays and the facts of a file that `encode_arrays` made.

    Raises
    ------
    ProtquantError
        If the file is damaged, or was stored under another key.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        if header["layout"] != _LAYOUT or header["key"] != key:
            raise ProtquantError("the file belongs to another key")
        if header["sha256"] != _digest(header["document"], arrays):
            raise ProtquantError("the hash of its content is wrong")
        return arrays, json.loads(header["document"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtquantError(f"{type(error).__name__}: {error}") from None


def _digest(document: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(document.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
