"""Compare the claims about the full size with the measurements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from protquant.bench.full_size.plan import Fold, Plan, Preparation
from protquant.bench.full_size.stage import StageRecord

__all__ = ["Claim", "claims_of"]


@dataclass(frozen=True)
class Claim:
    """A bound, and the measured value.

    Attributes
    ----------
    holds : bool or None
        Whether the bound holds; None if nothing was measured.
    """

    claim: str
    bound: str
    measured: str
    holds: bool | None

    def row(self) -> dict[str, Any]:
        holds = "not measured" if self.holds is None else "yes" if self.holds else "NO"
        return {"claim": self.claim, "bound": self.bound, "measured": self.measured, "holds": holds}


def claims_of(
    plan: Plan,
    preparations: Sequence[tuple[Preparation, StageRecord]],
    folds: Sequence[tuple[Fold, StageRecord]],
) -> Iterator[Claim]:
    """Yield a claim for every bound of a plan.

    Parameters
    ----------
    preparations, folds : sequence of (asked, record)
        Stages of the plan with their records. The bounds of other stages count as not measured.
    """
    prepared = {asked.recipe: record for asked, record in preparations}
    for preparation in plan.preparations:
        yield from _preparation(preparation, prepared.get(preparation.recipe))
    folded = dict(folds)
    for fold in plan.folds:
        if fold.limit is not None:
            yield _within(f"fold {fold.residues} residues by {fold.recipe}", fold.limit, folded.get(fold))
    for recipe in dict.fromkeys(fold.recipe for fold in plan.folds):
        loaded = [record.result for asked, record in folds if asked.recipe == recipe and record.result]
        made = prepared[recipe].result if recipe in prepared else None
        yield from _loading(plan, recipe, loaded, made)


def _preparation(asked: Preparation, record: StageRecord | None) -> Iterator[Claim]:
    if asked.limit is not None:
        yield _within(f"quantize by {asked.recipe}", asked.limit, record)
    if asked.disk is not None:
        made = record.result if record else None
        size = None if made is None else made["bytes_on_disk"] / 1e9
        yield _at_most(f"{asked.recipe} on disk", asked.disk, size, "GB")


def _loading(plan: Plan, recipe: str, loaded: list[dict[str, Any]], made: dict[str, Any] | None) -> Iterator[Claim]:
    """Return the claim on loading, for the worst of all processes that loaded the checkpoint from the disk."""
    seconds = max((result["load_seconds"] for result in loaded), default=None)
    yield _at_most(f"load {recipe} from the disk", plan.load_seconds, seconds, "s")
    what = f"resident after loading {recipe}"
    bound = f"at most {plan.resident_share:g} x disk + {plan.resident_rest / 1e6:g} MB"
    resident = max((result["loaded"]["resident"] or 0 for result in loaded), default=0)
    if not resident or made is None:
        yield Claim(what, bound, "-", None)
        return
    most = plan.resident_share * made["bytes_on_disk"] + plan.resident_rest
    yield Claim(what, bound, f"{resident / 1e9:.2f} GB of {most / 1e9:.2f}", resident <= most)


def _within(what: str, limit: float, record: StageRecord | None) -> Claim:
    bound = f"within {limit:g} GiB"
    if record is None:
        return Claim(what, bound, "-", None)
    ended = record.problem or "done"
    if record.outcome is None:
        return Claim(what, bound, ended, None)
    if not record.outcome.enforced:
        return Claim(what, bound, f"no limit was enforced ({ended})", None)
    return Claim(what, bound, ended, record.problem is None)


def _at_most(what: str, bound: float, measured: float | None, unit: str) -> Claim:
    if measured is None:
        return Claim(what, f"at most {bound:g} {unit}", "-", None)
    return Claim(what, f"at most {bound:g} {unit}", f"{measured:.2f} {unit}", measured <= bound)
