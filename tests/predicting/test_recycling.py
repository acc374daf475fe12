"""Recycling ends where the structure has come to rest, and at once where numbers are not finite."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protquant.errors import ProtquantError
from protquant.files import Manifest
from protquant.models import ESMFold, encode_complexes
from protquant.predicting import fold, fold_batch, fold_fasta
from protquant.predicting.recycling import PassWatch, distance_change
from protquant.proteins import Prediction

SEQUENCE = "MKTAYIAKQRQISFVKSHFS"
COMPLEX = "MKTAYIAKQR:GAVLIDE"


def colabfold_tolerance(before: Prediction, after: Prediction) -> float:
    """As ColabFold's `compute_tol` has it, from the atoms of the structure files."""
    distances = []
    for prediction in (before, after):
        ca = prediction.atoms.coord[prediction.atoms.atom_name == "CA"].astype(np.float64)
        distances.append(np.linalg.norm(ca[:, None] - ca[None], axis=-1))
    return float(np.sqrt(np.mean((distances[0] - distances[1]) ** 2) + 1e-8))


@pytest.mark.parametrize("sequence", [SEQUENCE, COMPLEX])
def test_it_ends_at_the_first_pass_that_moves_less_and_gives_the_bits_of_so_many_recycles(
    esmfold: ESMFold, sequence: str
):
    passes = [fold(esmfold, sequence, num_recycles=count) for count in range(6)]
    changes = [colabfold_tolerance(*pair) for pair in pairwise(passes)]
    assert min(changes) > 0.01
    for tolerance in (min(changes) * 0.99, min(changes) * 1.01, max(changes) * 1.01):
        expected = next((index + 1 for index, change in enumerate(changes) if change < tolerance), 5)
        found = fold(esmfold, sequence, num_recycles=5, recycle_tolerance=tolerance)
        assert found.recycles == expected
        assert np.array_equal(found.atoms.coord, passes[expected].atoms.coord)
        assert np.array_equal(found.pae, passes[expected].pae)


def test_the_distance_is_that_of_colabfold_whatever_the_place_in_space():
    generator = torch.Generator().manual_seed(0)
    before, after = (10 * torch.randn(30, 3, generator=generator) for _ in range(2))
    a, b = (np.linalg.norm(x.numpy()[:, None] - x.numpy()[None], axis=-1) for x in (before, after))
    assert distance_change(before, after) == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=1e-5)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    assert distance_change(before, before @ turn + 50) < 1e-3
    assert distance_change(before[:1], after[:1]) == pytest.approx(1e-4)  # one residue has no distances


def test_without_a_tolerance_the_bits_are_those_of_the_model_alone(esmfold: ESMFold):
    with torch.no_grad():
        alone = esmfold(encode_complexes([SEQUENCE]), num_recycles=2)
    found = fold(esmfold, SEQUENCE, num_recycles=2)
    assert found.recycles == 2
    assert np.array_equal(found.atoms.coord, alone.positions[alone.atom_mask].numpy())


def test_proteins_of_one_file_stop_each_at_its_own_time_with_the_bits_of_each_alone(
    esmfold_checkpoint: Path, esmfold: ESMFold, tmp_path: Path
):
    sequences = {"a": SEQUENCE, "b": SEQUENCE[:9], "c": COMPLEX}
    fasta = tmp_path / "in.fasta"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sequences.items()))
    settings = {"num_recycles": 6, "recycle_tolerance": 1.0}
    run = fold_fasta(fasta, tmp_path / "out", str(esmfold_checkpoint), plots=False, **settings)
    alone = {name: fold(esmfold, sequence, name=name, **settings) for name, sequence in sequences.items()}
    assert {row["name"]: row["recycles"] for row in run.rows} == {name: each.recycles for name, each in alone.items()}
    assert len({each.recycles for each in alone.values()}) > 1
    assert {row["name"]: row["ptm"] for row in run.rows} == {name: each.row()["ptm"] for name, each in alone.items()}
    assert run.settings["recycle_tolerance"] == 1.0


def test_another_tolerance_folds_again_and_none_leaves_done_what_was_done_before(
    esmfold_checkpoint: Path, tmp_path: Path
):
    fasta = tmp_path / "in.fasta"
    fasta.write_text(f">a\n{SEQUENCE[:8]}\n")

    def skipped(**settings: float) -> list[str]:
        return fold_fasta(fasta, tmp_path / "out", str(esmfold_checkpoint), plots=False, **settings).skipped

    assert skipped() == []
    assert "recycle_tolerance" not in Manifest.load(tmp_path / "out").entries["a"].row
    assert skipped(recycle_tolerance=0.0) == ["a"]
    assert skipped(recycle_tolerance=0.5) == []
    assert skipped(recycle_tolerance=0.5) == ["a"]
    assert skipped(recycle_tolerance=0.4) == []


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_makes_no_sense_is_refused(esmfold: ESMFold, tolerance: float):
    with pytest.raises(ProtquantError, match=r"the recycle tolerance is .*; give 0"):
        fold(esmfold, SEQUENCE, recycle_tolerance=tolerance)


def test_a_batch_is_refused_with_a_tolerance(esmfold: ESMFold):
    with pytest.raises(ProtquantError, match="one at a time with a recycle tolerance"):
        fold_batch(esmfold, ["MKT", "GAV"], ["a", "b"], recycle_tolerance=0.5)


def poisoned(module: nn.Module, call: int, poison: Callable[[Tensor], None]) -> "torch.utils.hooks.RemovableHandle":
    """Spoil what a part of the model gives when it is called for the `call`-th time."""
    calls = 0

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal calls
        if calls == call:
            poison(getattr(output, "positions", output))
        calls += 1

    return module.register_forward_hook(hook)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("single_exit", "the single representation is"),
        ("pair_exit", "the pair representation is"),
        ("structure_module", "the coordinates are"),
    ],
)
def test_a_number_that_is_not_finite_is_told_with_its_recycle_its_tensor_and_its_protein(
    esmfold: ESMFold, part: str, what: str, value: float
):
    passes = []
    count = esmfold.trunk.structure_module.register_forward_pre_hook(lambda *_: passes.append(1))
    hook = poisoned(esmfold.trunk.get_submodule(part), 1, lambda x: x[1, 2].view(-1)[3:4].fill_(value))
    try:
        with pytest.raises(
            ProtquantError, match=f"^second: after recycle 1 {what} not finite; the weights may be damaged"
        ):
            fold_batch(esmfold, [SEQUENCE, SEQUENCE[:7], SEQUENCE[:12]], ["first", "second", "third"], num_recycles=4)
    finally:
        hook.remove()
        count.remove()
    assert len(passes) == 2  # and none of those that were to come


def test_padding_may_hold_anything(esmfold: ESMFold):
    batch = encode_complexes([SEQUENCE, SEQUENCE[:7]])
    watch = PassWatch(esmfold, batch, ["a", "b"])

    def spoil(recycle: int, single: Tensor, pair: Tensor, structure: object) -> bool:
        single[1, 7:], pair[1, 7:], pair[1, :, 7:] = torch.nan, torch.nan, torch.nan
        return watch(recycle, single, pair, structure)

    with torch.no_grad():
        esmfold(batch, num_recycles=0, after_pass=spoil)
    assert watch.recycles == 0
