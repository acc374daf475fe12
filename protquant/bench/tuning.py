"""`protquant kernels --tune`: find the fastest tiles on this machine's GPU."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from protquant.errors import ProtquantError
from protquant.kernels.epilogue import Epilogue
from protquant.kernels.operands import Codes8, Grid, IntegerWeight
from protquant.kernels.packing import pack4
from protquant.kernels.triton.attention import attention_int8
from protquant.kernels.triton.gated_projection import gated_projection
from protquant.kernels.triton.int4_linear import linear_int4
from protquant.kernels.triton.int8_linear import linear_int8
from protquant.kernels.triton.operands import KernelWeight
from protquant.kernels.triton.tiles import MatmulTile, linear_key, target_of
from protquant.kernels.triton.tiles_triangle import AttentionTile, TransitionTile, gated_tile, triangle_tile
from protquant.kernels.triton.transition import transition_int8
from protquant.kernels.triton.triangle_product import triangle_product
from protquant.kernels.triton.tuned import Tile
from protquant.reporting.steps import Steps

__all__ = ["Case", "TunedCase", "cases_of", "tune"]

# Channels of the pair, of a head and of the single representation of ESMFold.
_PAIR, _HEADS, _HEAD, _SINGLE = 128, 4, 32, 1024

# Rows, columns and depth of a tile, warps, stages.
_LINEARS = (
    *((64, 64, 128, 4, 2), (64, 128, 128, 4, 2), (128, 64, 128, 4, 2), (128, 64, 128, 8, 2), (128, 128, 128, 4, 2)),
    *((128, 128, 128, 8, 2), (128, 128, 64, 8, 3), (64, 128, 64, 4, 3), (128, 32, 128, 4, 2), (256, 64, 128, 8, 2)),
)
_GATED = (
    *((64, 64, 128, 4, 2), (64, 128, 128, 4, 2), (128, 64, 128, 8, 2), (64, 32, 128, 4, 2), (128, 32, 128, 4, 2)),
    *((128, 64, 64, 8, 3), (32, 128, 128, 4, 2)),
)
_TRIANGLES = (
    *((64, 64, 64, 4, 3), (128, 128, 128, 8, 3), (128, 128, 64, 8, 4), (128, 64, 128, 4, 3), (64, 128, 128, 4, 3)),
    *((128, 256, 64, 8, 3), (64, 64, 128, 4, 3)),
)
# Queries or rows, keys or hidden channels, warps, stages.
_ATTENTIONS = (
    *((64, 32, 4, 2), (64, 64, 4, 2), (64, 64, 4, 3), (64, 128, 4, 2), (128, 32, 8, 2), (128, 64, 8, 3)),
    *((128, 128, 8, 2), (128, 64, 4, 2)),
)
_TRANSITIONS = ((64, 64, 4, 2), (64, 128, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 8, 3), (64, 32, 4, 2))


@dataclass(frozen=True)
class Case:
    """A kernel call whose tile is tuned.

    Attributes
    ----------
    key : str
        Name under which the tile is stored.
    what : str
        Description of the work.
    default : tile
        Tile of the small table.
    candidates : sequence of tuple of int
        Sizes of other tiles of the same kind.
    run : callable
        Function that calls the kernel with a tile.
    """

    key: str
    what: str
    default: Tile
    candidates: Sequence[tuple[int, ...]]
    run: Callable[[Any], Tensor]


@dataclass(frozen=True)
class TunedCase:
    """The result for a case; times are medians.

    Attributes
    ----------
    failed : int
        Number of candidates that do not run on this GPU, such as those that need more shared memory than it has.
    """

    key: str
    what: str
    default: Tile
    default_microseconds: float
    best: Tile
    best_microseconds: float
    tried: int
    failed: int


def cases_of(device: torch.device, length: int) -> Iterator[Case]:
    """Yield the kernels of a trunk block for a protein of `length` residues, and linear layers of a language model.

    Operands are made when a case is yielded, and can be deleted before the next one.
    """
    torch.manual_seed(0)
    make, pairs, rows = _Cases(device, length), length * length, max(length, 256)
    yield make.linear(pairs, _PAIR, _PAIR, gated=False)
    yield make.linear(pairs, _PAIR, _PAIR, gated=True)
    yield make.linear(rows, _SINGLE, 3 * _SINGLE, gated=False)
    yield make.linear(rows, _SINGLE, _SINGLE, gated=True)
    yield make.linear_of_4_bits(pairs, _PAIR, _PAIR)
    yield make.linear_of_4_bits(rows, _SINGLE, 3 * _SINGLE)
    yield make.gated_projection()
    yield make.triangle_product()
    yield make.attention()
    yield make.transition()


class _Cases:
    """Makes a case of each kernel, with random operands."""

    def __init__(self, device: torch.device, length: int) -> None:
        self.device, self.length, self.target = device, length, target_of(device)

    def codes(self, *shape: int) -> Tensor:
        return torch.randint(-127, 128, shape, dtype=torch.int8, device=self.device)

    def scales(self, *shape: int) -> Tensor:
        return 1e-3 * (1 + torch.rand(*shape, device=self.device))

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def rows_of(self, rows: int, reads: int) -> Codes8:
        zero = torch.zeros(1, dtype=torch.int32, device=self.device)
        return Codes8(self.codes(rows, reads), torch.ones(1, device=self.device), zero)

    def projection(self, writes: int, reads: int) -> KernelWeight:
        codes, scale = self.codes(writes, reads), self.scales(writes, 1)
        return KernelWeight.of(IntegerWeight(codes, scale, None, self.floats(writes), writes))

    def linear(self, rows: int, reads: int, writes: int, *, gated: bool) -> Case:
        x, weight, residual = self.rows_of(rows, reads), self.projection(writes, reads), self.floats(rows, writes)
        after = Epilogue(residual=residual)
        if gated:
            after = Epilogue("sigmoid", self.floats(rows, writes).bfloat16(), residual)
        out = torch.empty(rows, writes, device=self.device)
        return Case(
            linear_key("int8", reads, gated),
            f"{rows} x {reads} -> {writes}, {'gate and residual' if gated else 'residual'}",
            MatmulTile.of(self.target, "int8", channels=reads, wide=gated),
            _LINEARS,
            lambda tile: linear_int8(x, weight, after, has_zero=False, tile=tile, out=out),
        )

    def linear_of_4_bits(self, rows: int, reads: int, writes: int) -> Case:
        x, after, groups = self.rows_of(rows, reads), Epilogue(dtype=torch.bfloat16), reads // 32
        packed = pack4(torch.randint(0, 16, (writes, reads), device=self.device))
        zero = torch.full((writes, groups), 8, dtype=torch.uint8, device=self.device)
        weight = KernelWeight.of(IntegerWeight(packed, self.scales(writes, groups), zero, None, writes, "int4", 32))
        return Case(
            linear_key("int4", reads, True),
            f"{rows} x {reads} -> {writes}, groups of 32",
            MatmulTile.of(self.target, "int4", channels=reads, wide=True),
            _LINEARS,
            lambda tile: linear_int4(x, weight, after, has_zero=False, tile=tile),
        )

    def gated_projection(self) -> Case:
        pairs, both = self.length**2, (self.projection(_PAIR, _PAIR), self.projection(_PAIR, _PAIR))
        x = self.rows_of(pairs, _PAIR)
        return Case(
            "gated_projection",
            f"{pairs} x {_PAIR} -> {_PAIR}, channel by channel",
            gated_tile(self.target),
            _GATED,
            lambda tile: gated_projection(x, *both, Grid(1.0, 0, -128, 127), has_zero=False, tile=tile),
        )

    def triangle_product(self) -> Case:
        length, room = self.length, 16 * -(-self.length // 16)  # padded, as the backend has them
        left, right = (self.codes(_PAIR, room + 16, room) for _ in range(2))
        for operand in (left, right):
            operand[:, :, length:] = 0
        operands, grid = (left[:, :length, :length], right[:, :length, :length]), Grid(1.0, 0, -128, 127)
        return Case(
            "triangle_product",
            f"{_PAIR} channels, {length} residues",
            triangle_tile(self.target, is_aligned=True),
            _TRIANGLES,
            lambda tile: triangle_product(*operands, (grid, grid), "outgoing", is_padded=True, tile=tile),
        )

    def attention(self) -> Case:
        length = self.length
        q, k, v = self.codes(length, length, 3, _HEADS, _HEAD).permute(2, 0, 3, 1, 4).unbind()
        step, size = torch.tensor(1e-2, device=self.device), torch.tensor(0.1, device=self.device)
        bias = self.floats(1, _HEADS, length, 16 * -(-length // 16)).half()[..., :length]
        return Case(
            f"attention_int8, {_HEAD} channels",
            f"{length} x {_HEADS} heads of {_HEAD} channels, {length} residues",
            AttentionTile.of(self.target, _HEAD),
            _ATTENTIONS,
            lambda tile: attention_int8(q, k, v, step, step, size, bias=bias, dtype=torch.bfloat16, tile=tile),
        )

    def transition(self) -> Case:
        pairs, hidden = self.length**2, Grid(1.0, 0, 0, 127)
        x, residual = self.rows_of(pairs, _PAIR), self.floats(pairs, _PAIR)
        up, down = self.projection(4 * _PAIR, _PAIR), self.projection(_PAIR, 4 * _PAIR)
        return Case(
            "transition_int8",
            f"{pairs} x {_PAIR} -> {4 * _PAIR} -> {_PAIR}",
            TransitionTile.of(self.target, _PAIR),
            _TRANSITIONS,
            lambda tile: transition_int8(x, up, hidden, down, residual=residual, has_zero=False, tile=tile),
        )


def tune(
    cases: Iterator[Case] | Sequence[Case],
    measure: Callable[[Callable[[], Any]], float],
    *,
    progress: bool | None = None,
) -> list[TunedCase]:
    """Time the candidates of each case against its default.

    Parameters
    ----------
    measure : callable
        Returns the time of a call in microseconds.

    Returns
    -------
    list of TunedCase
        The best tiles; the default stays if no other tile is faster by more than 2 %, the size of noise.

    Raises
    ------
    ProtquantError
        If the result of a candidate differs from that of the default.
    """
    found = []
    bar = Steps(cases, unit="kernel", disable=None if progress is None else not progress, leave=False)
    for case in bar:
        bar.set_description(case.key)
        expected = case.run(case.default).double()  # a copy, because some kernels write into the same memory
        before = best_time = measure(lambda case=case: case.run(case.default))  # type: ignore[misc]
        best, failed = case.default, 0
        others = [type(case.default)(*numbers) for numbers in case.candidates if numbers != astuple(case.default)]
        for tile in others:
            try:
                y = case.run(tile).double()
                # A kernel that needs too many resources fails at launch.
                time = measure(lambda case=case, tile=tile: case.run(tile))  # type: ignore[misc]
            except Exception:  # noqa: BLE001 (compilers fail in many ways; one that does is no candidate)
                failed += 1
                continue
            size = float(expected.abs().max())
            if not float((y - expected).abs().max()) <= 0.01 * size + 1.0:
                raise ProtquantError(f"{case.key}: {tile} does not give what {case.default} gives; please report it")
            if time < min(best_time, 0.98 * before):
                best, best_time = tile, time
        found.append(TunedCase(case.key, case.what, case.default, before, best, best_time, 1 + len(others), failed))
    return found
