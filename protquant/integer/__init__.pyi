from protquant.integer.convert import to_integer
from protquant.integer.part import SupportRow
from protquant.integer.support import IntegerClaim, Support, integer_claim

__all__ = ["IntegerClaim", "Support", "SupportRow", "integer_claim", "to_integer"]
