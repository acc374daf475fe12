"""A float checkpoint gives its model as a whole, or part by part, with the same numbers."""

from pathlib import Path

import torch

from protquant.checkpoints import load, open_checkpoint
from protquant.models import encode_complexes
from protquant.topology import find_chains


def test_a_skeleton_has_no_weights_and_takes_those_of_a_unit(esmfold_folder: Path):
    checkpoint, whole = open_checkpoint(esmfold_folder), load(esmfold_folder)
    model = checkpoint.skeleton()
    assert all(parameter.is_meta for parameter in model.parameters())
    checkpoint.read_into(model, "trunk.blocks.1")
    checkpoint.read_into(model, None)
    blocks = [block for chain in find_chains(whole) for block in chain if block != "trunk.blocks.1"]
    for name, parameter in model.named_parameters():
        inside = any(name.startswith(f"{block}.") for block in blocks)
        assert parameter.is_meta == inside, name
        assert inside or torch.equal(parameter, whole.get_parameter(name))


def test_a_model_runs_while_its_blocks_come_and_go(esmfold_folder: Path):
    checkpoint, whole = open_checkpoint(esmfold_folder), load(esmfold_folder)
    model = checkpoint.skeleton()
    blocks = [block for chain in find_chains(model) for block in chain]
    checkpoint.read_into(model, None)
    batch = encode_complexes(["GIVEQCCTSICSLYQLENYCN"])
    with torch.no_grad(), checkpoint.reading_blocks(model, blocks):
        found = model(batch, 1)
    assert torch.equal(found.positions, whole(batch, 1).positions)
    assert all(parameter.is_meta for block in blocks for parameter in model.get_submodule(block).parameters())


def test_its_fingerprint_is_that_of_the_loaded_model(esmfold_folder: Path, same_esm2_twice: tuple[Path, Path]):
    for source in (esmfold_folder, *same_esm2_twice):
        assert open_checkpoint(source).fingerprint() == load(source).fingerprint


def test_it_knows_its_files(esmfold_folder: Path, fair_esmfold_file: Path):
    assert esmfold_folder / "config.json" in open_checkpoint(esmfold_folder).files
    assert fair_esmfold_file in open_checkpoint(fair_esmfold_file).files
