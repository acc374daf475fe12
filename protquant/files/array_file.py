"""Arrays and plain data in one safetensors file, which is read whole or not at all."""

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
    """Return the content of a file.

    Parameters
    ----------
    key : str
        What the file is stored under.
    arrays : mapping of str to array
        Of numbers.
    facts : object
        What JSON can hold; NaN and infinities too.
    """
    from safetensors.numpy import save  # noqa: PLC0415 (it takes time to import)

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    document = json.dumps(facts)
    header = {"layout": _LAYOUT, "key": key, "document": document, "sha256": _digest(document, whole)}
    content: bytes = save(whole, header)
    return content


def decode_arrays(content: bytes, key: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """Return the arrays and the facts that `encode_arrays` made a file of.

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
            raise ProtquantError("it holds something else")
        if header["sha256"] != _digest(header["document"], arrays):
            raise ProtquantError("its content does not have the hash that it had")
        return arrays, json.loads(header["document"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtquantError(f"{type(error).__name__}: {error}") from None


def _digest(document: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(document.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
