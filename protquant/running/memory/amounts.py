"""Amounts of memory as people write them, such as "12GiB", and back."""

from pydantic import ByteSize, TypeAdapter, ValidationError

from protquant.errors import ProtquantError

__all__ = ["format_bytes", "parse_bytes"]

_BYTE_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)
_SMALLEST = 2**20


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that `text` says: "12GiB", "8 GB", "500MiB", or a plain number of bytes.

    Raises
    ------
    ProtquantError
        If it is no amount of memory, or less than 1 MiB, which is a number whose unit was forgotten.
    """
    try:
        amount = int(_BYTE_SIZE.validate_python(text.strip() if isinstance(text, str) else text))
    except ValidationError:
        raise ProtquantError(
            f"{text!r} is no amount of memory; give a number and a unit, such as 12GiB, 8GB or 500MiB"
        ) from None
    if amount < _SMALLEST:
        raise ProtquantError(f"{text!r} is {amount} bytes, and no model runs in that; give a unit too, such as 12GiB")
    return amount


def format_bytes(amount: float) -> str:
    """Return an amount with two decimals in GiB, or in whole MiB below a quarter of one."""
    return f"{amount / 2**30:.2f} GiB" if abs(amount) >= 2**28 else f"{amount / 2**20:.0f} MiB"
