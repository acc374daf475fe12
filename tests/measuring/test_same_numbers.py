"""A protein has the same numbers whatever is folded beside it, and whichever process folds it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from protquant.checkpoints import load
from protquant.models import ESMFold, encode_complexes
from protquant.preparing import quantize

SEQUENCES = ["MKTAYIAKQRQISFVKSHFSRQMKTAYIAK", "GSHMLEDWACDEFGHI", "MKT:GAVLIDE"]
CALIBRATION = ["GIVEQCCTSICSLYQLENYCNFVNQHLCGSHLVEALYLVCGERGFFYTPKTMKTAYIAKQR"]
# Sums of floats may be made in another order beside padding.
ANGSTROM, OF_PAIR = 1e-3, 1e-4
# Without VNNI attention on integers sums floats so, and a last bit there is a step of a code now and then.
A_STEP = 0.3


def quantized(checkpoint: Path, recipe: str, execution: str) -> ESMFold:
    model = load(checkpoint)
    assert isinstance(model, ESMFold)
    return quantize(model, recipe, CALIBRATION, execution=execution, cache=False)[0]


@torch.no_grad()
def apart(model: ESMFold) -> tuple[float, float]:
    """The most that coordinates, in angstrom, and the pair differ between a batch and each protein alone."""
    together, differences = model(encode_complexes(SEQUENCES), num_recycles=0), []
    for row, sequence in enumerate(SEQUENCES):
        alone = model(encode_complexes([sequence]), num_recycles=0)
        length = alone.positions.shape[1]

        def most(padded: Tensor, own: Tensor) -> float:
            return float((padded - own).abs().max())

        coordinates = most(together.positions[row, :length], alone.positions[0])
        differences.append((coordinates, most(together.pair[row, :length, :length], alone.pair[0])))
    return max(one for one, _ in differences), max(other for _, other in differences)


@pytest.mark.parametrize("execution", ["simulate", "integer"])
@pytest.mark.parametrize("recipe", ["w8a8-int8", "w8a8-token"])
def test_padding_changes_no_quantized_protein(esmfold_checkpoint: Path, recipe: str, execution: str):
    angstrom, of_pair = apart(quantized(esmfold_checkpoint, recipe, execution))
    steps = (recipe, execution) == ("w8a8-int8", "integer")
    assert angstrom < (A_STEP if steps else ANGSTROM)
    assert of_pair < (A_STEP if steps else OF_PAIR)


def test_a_range_that_sees_padded_keys_would_be_found(esmfold_checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    model = quantized(esmfold_checkpoint, "w8a8-token", "simulate")
    for module in ("esm2", "trunk", "triangle", "structure_module"):
        with monkeypatch.context() as patch:
            place = importlib.import_module(f"protquant.models.{module}")
            patch.setattr(place, "tap_logits", lambda tap, logits, _valid: tap(logits))
            assert apart(model)[0] > 10 * ANGSTROM, module


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(esmfold_checkpoint: Path, calibration_file: Path, tmp_path: Path):
    fasta = tmp_path / "in.fasta"
    fasta.write_text("".join(f">p{k}\n{each}\n" for k, each in enumerate(SEQUENCES)))
    command = [sys.executable, "-m", "protquant", "fold", "-i", str(fasta), "-m", str(esmfold_checkpoint)]
    command += ["--quant", "w8a8-int8", "--calibration", str(calibration_file), "--no-plots", "--no-cache"]
    for name in "ab":
        subprocess.run([*command, "-o", str(tmp_path / name)], check=True, timeout=120, capture_output=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.name != "manifest.jsonl"}
    assert {"p0.pdb", "p1.cif", "p2_pae.json", "predictions.csv"} <= set(files)
    for name, content in files.items():
        assert (tmp_path / "b" / name).read_bytes() == content, name
