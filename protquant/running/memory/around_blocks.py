"""Memory of folding outside the blocks of the trunk: recycling, structure module, heads and predictions."""

from collections.abc import Iterator

from protquant.models.confidence import PLDDT_BINS, ROWS
from protquant.models.esmfold import DISTOGRAM_BINS
from protquant.running.memory.setup import Setup
from protquant.running.memory.terms import Term

__all__ = ["surrounding_terms"]

_ATOMS = 37


def surrounding_terms(setup: Setup, length: int, batch: int) -> Iterator[Term]:
    """Yield the memory terms of a batch."""
    trunk, copies = setup.config.trunk, setup.copies
    structure = trunk.structure_module
    channel = batch * length**2
    pair = channel * trunk.pair_dim * setup.element
    # The pair before and after its norm, or after it and an embedding; bins and residue distances, int64.
    yield Term("recycling", int((2 + copies["norm_input"]) * pair) + 2 * channel * 8)
    # The trunk's pair; the structure module's pair in float32 before and after its norm, or after it and 7 maps.
    own = channel * structure.pair_dim * 4
    after = max(1 + copies["norm_input"], 7 * structure.num_heads / structure.pair_dim)
    yield Term("structure module", pair + own + int(after * own))
    # The pair; logits of distances, and either their transposed copy or the logits of aligned errors.
    logits = channel * DISTOGRAM_BINS * (setup.element + 4)
    atoms = batch * length * _ATOMS * PLDDT_BINS * 4
    # Logits of pLDDT and their probabilities.
    # Probabilities of aligned errors of `ROWS` rows, and their products with the centers of bins; five square matrices.
    errors = 2 * batch * min(length, ROWS) * length * DISTOGRAM_BINS * 4 + 5 * channel * 4
    yield Term("heads", pair + logits + atoms + max(atoms, errors))
