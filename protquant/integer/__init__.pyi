from protquant.integer.claims import IntegerClaim, integer_claim
from protquant.integer.convert import Support, SupportRow, to_integer

__all__ = ["IntegerClaim", "Support", "SupportRow", "integer_claim", "to_integer"]
