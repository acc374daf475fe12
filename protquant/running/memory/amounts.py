"""Reading and writing amounts of memory, such as "12GiB"."""

from pydantic import ByteSize, TypeAdapter, ValidationError

from protquant.errors import ProtquantError

__all__ = ["format_bytes", "parse_bytes"]

_BYTE_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)
_SMALLEST = 2**20


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes of an amount: "12GiB", "8 GB", "500MiB", or a plain number of bytes.

    Raises
    ------
    ProtquantError
        If the text is not an amount of memory, or less than 1 MiB, as if the unit were forgotten.
    """
    try:
        amount = int(_BYTE_SIZE.validate_python(text.strip() if isinstance(text, str) else text))
    except ValidationError:
        raise ProtquantError(
            f"{text!r} is not an amount of memory; give a number and a unit, such as 12GiB, 8GB or 500MiB"
        ) from None
    if amount < _SMALLEST:
        raise ProtquantError(f"{text!r} is {amount} bytes, too little for any model; give a unit too, such as 12GiB")
    return amount


def format_bytes(amount: float) -> str:
    """Return an amount in GiB with two decimals, or in whole MiB below 0.25 GiB."""
    return f"{amount / 2**30:.2f} GiB" if abs(amount) >= 2**28 else f"{amount / 2**20:.0f} MiB"
