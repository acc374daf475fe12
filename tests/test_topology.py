"""What models declare of their layers is so: channels may be scaled along links and products."""

import copy

import pytest
import torch
from torch import nn

from protquant.models import ESM2, ESMFold, encode_complexes, tokenize
from protquant.topology import find_chains, find_links, find_products, find_streams

SEQUENCE = "MKTVRQERLKSIVRILERSK"


def outputs(model: nn.Module) -> list[torch.Tensor]:
    with torch.no_grad():
        if isinstance(model, ESMFold):
            result = model(encode_complexes([SEQUENCE]), num_recycles=1)
            return [result.positions, result.plddt_logits, result.pae_logits, result.distogram_logits]
        assert isinstance(model, ESM2)
        tokens = tokenize([SEQUENCE])
        return [model.logits(tokens), model.contacts(tokens)]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max().item() <= 1e-5 * b.abs().max().item()


@pytest.fixture(params=["esm2", "esmfold"])
def model(request: pytest.FixtureRequest, esmfold: ESMFold) -> ESM2 | ESMFold:
    model = copy.deepcopy(esmfold).double().eval()
    return model.lm if request.param == "esm2" else model


def test_paths_are_of_layers_of_the_declared_kinds(model: ESM2 | ESMFold):
    for link in find_links(model):
        readers = [model.get_submodule(path) for path in link.readers]
        assert all(isinstance(reader, nn.Linear) for reader in readers)
        assert len({reader.in_features for reader in readers}) == 1
        if link.writer is not None:
            writer = model.get_submodule(link.writer)
            assert isinstance(writer, nn.Linear | nn.LayerNorm)
            rows = len(writer.weight) if link.rows is None else len(link.rows)
            assert rows == readers[0].in_features
    for stream in find_streams(model):
        assert all(isinstance(model.get_submodule(path), nn.LayerNorm) for path in stream.norms)
        assert all(model.get_submodule(path).out_features == stream.dim for path in stream.writers)
        assert all(isinstance(model.get_submodule(path), nn.Identity) for path in (*stream.entries, *stream.exits))


def test_every_linear_layer_of_a_block_has_one_link(model: ESM2 | ESMFold):
    readers = [reader for link in find_links(model) for reader in link.readers]
    assert len(readers) == len(set(readers))
    blocks = [block for chain in find_chains(model) for block in chain]
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(path.startswith(f"{block}.") for block in blocks):
            assert path in readers


def test_the_norms_of_streams_write_links(model: ESM2 | ESMFold):
    writers = {link.writer for link in find_links(model)}
    assert all(norm in writers for stream in find_streams(model) for norm in stream.norms)


@torch.no_grad()
def test_outputs_stay_when_both_sides_of_a_product_are_scaled(model: ESM2 | ESMFold):
    before = outputs(model)
    products = list(find_products(model))
    assert products
    for product in products:
        scale = torch.rand(len(product.left_rows), dtype=torch.float64) + 0.5
        if product.tied:
            pairs = scale.view(-1, 2, product.tied)
            scale = pairs[:, :1].expand_as(pairs).flatten()
        for path, rows, factor in (
            (product.left, product.left_rows, scale),
            (product.right, product.right_rows, 1 / scale),
        ):
            layer = model.get_submodule(path)
            layer.weight[list(rows)] *= factor[:, None]
            if layer.bias is not None:
                layer.bias[list(rows)] *= factor
    assert_same(outputs(model), before)


def test_chains_are_the_blocks_that_run_in_order(esmfold: ESMFold):
    layers = len(esmfold.lm.layers)
    assert find_chains(esmfold) == [
        [f"lm.layers.{i}" for i in range(layers)],
        [f"trunk.blocks.{i}" for i in range(len(esmfold.trunk.blocks))],
    ]
    assert find_chains(esmfold.lm) == [[f"layers.{i}" for i in range(layers)]]
