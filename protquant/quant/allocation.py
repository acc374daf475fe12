"""Choose a format for each group of sites: least drift within a budget of bits, or fewest bits within a drift.

This is a multiple-choice knapsack: each group gets one option, and costs and losses add up. The search adds one group
at a time and stores the partial choices that no other choice beats in both cost and loss (Nemhauser and Ullmann 1969).
It drops those that the bound of the Lagrangian relaxation shows to be worse than a known choice. The result is exact
unless more than `MAX_STATES` partial choices remain at once; then `Allocation.bound` limits its distance from the
optimum.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protquant.errors import ProtquantError

__all__ = ["MAX_STATES", "Allocation", "Option", "allocate"]

MAX_STATES = 20_000
_ROUNDS = 60
# For every stored state: the index of the state before it, and that of the option that was added.
_Step = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Option:
    """One format of one group.

    Attributes
    ----------
    name : str
        Name of the format, for messages and for the caller.
    cost : float
        Cost, in the unit of the budget.
    loss : float
        Loss, whose sum over groups is minimized.
    """

    name: str
    cost: float
    loss: float


@dataclass(frozen=True)
class Allocation:
    """The chosen option of each group.

    Attributes
    ----------
    bound : float
        Lower bound of the sum of losses of any choice within the budget; equal to `loss` if the search was exact.
    """

    options: dict[str, Option]
    cost: float
    loss: float
    bound: float


def allocate(options: Mapping[str, Sequence[Option]], budget: float) -> Allocation:
    """Choose one option per group: the smallest sum of losses among those whose costs sum to at most `budget`.

    Parameters
    ----------
    options : mapping
        Options by group. For the fewest bits within a drift, use the drift as the cost and the bits as the loss.

    Raises
    ------
    ProtquantError
        If a group has no options, a number is not finite, or the cheapest options together exceed the budget.
    """
    for group, choices in options.items():
        if not choices:
            raise ProtquantError(f"{group}: there is no option to choose from")
        for option in choices:
            if not np.isfinite([option.cost, option.loss]).all():
                raise ProtquantError(
                    f"{group}, {option.name}: cost {option.cost} and loss {option.loss} are no numbers"
                )
    efficient = {group: _efficient(choices) for group, choices in options.items()}
    least = sum(choices[0].cost for choices in efficient.values())
    # The tolerance allows for rounding: sums in another order differ in the last digits.
    tolerance = 1e-9 * max(abs(budget), abs(least), 1e-300)
    if least > budget + tolerance:
        raise ProtquantError(f"a budget of {budget:.6g} is less than {least:.6g}, which the cheapest options take")
    budget += tolerance
    multiplier = _multiplier(list(efficient.values()), budget)
    known = _repaired(efficient, multiplier, budget)
    # Groups with large differences first: the bound becomes tight sooner.
    order = sorted(efficient, key=lambda group: efficient[group][0].loss - efficient[group][-1].loss, reverse=True)
    found, bound = _search(
        [efficient[group] for group in order], multiplier, budget, sum(o.loss for o in known.values())
    )
    chosen = known if found is None else dict(zip(order, found, strict=True))
    chosen = {group: chosen[group] for group in options}
    loss = sum(option.loss for option in chosen.values())
    return Allocation(chosen, sum(option.cost for option in chosen.values()), loss, min(bound, loss))


def _efficient(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other option beats in both cost and loss, the cheapest first."""
    efficient: list[Option] = []
    for option in sorted(options, key=lambda each: (each.cost, each.loss)):
        if not efficient or option.loss < efficient[-1].loss:
            efficient.append(option)
    return efficient


def _best(options: Sequence[Option], multiplier: float) -> Option:
    return min(options, key=lambda option: (option.loss + multiplier * option.cost, option.cost))


def _multiplier(groups: Sequence[Sequence[Option]], budget: float) -> float:
    """Return the smallest Lagrange multiplier whose best options fit the budget, by bisection."""

    def cost(multiplier: float) -> float:
        return sum(_best(options, multiplier).cost for options in groups)

    if cost(0.0) <= budget:
        return 0.0
    slopes = [
        (a.loss - b.loss) / (b.cost - a.cost)
        for options in groups
        for a, b in itertools.pairwise(options)
        if b.cost > a.cost
    ]
    low, high = 0.0, 2 * max(slopes, default=1.0)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= budget else (middle, high)
    return high


def _repaired(groups: Mapping[str, Sequence[Option]], multiplier: float, budget: float) -> dict[str, Option]:
    """Return the best options at the multiplier, improved greedily (by loss per cost) with the rest of the budget."""
    chosen = {group: _best(options, multiplier) for group, options in groups.items()}
    left = budget - sum(option.cost for option in chosen.values())
    if left < 0:
        chosen = {group: options[0] for group, options in groups.items()}
        left = budget - sum(option.cost for option in chosen.values())
    while True:
        steps = [
            ((now.loss - option.loss) / (option.cost - now.cost), group, option)
            for group, now in chosen.items()
            for option in groups[group]
            if now.cost < option.cost <= now.cost + left and option.loss < now.loss
        ]
        if not steps:
            return chosen
        _, group, option = max(steps, key=lambda step: step[0])
        left -= option.cost - chosen[group].cost
        chosen[group] = option


def _search(
    groups: Sequence[Sequence[Option]], multiplier: float, budget: float, known: float
) -> tuple[list[Option] | None, float]:
    """Return the best choice with a loss below `known`, or None, and a lower bound of the loss of all choices."""
    relaxed = [min(o.loss + multiplier * o.cost for o in options) for options in groups]
    # Smallest relaxed loss and smallest cost of the groups that are still undecided.
    rest = np.append(np.cumsum(relaxed[::-1])[::-1], 0.0)
    least = np.append(np.cumsum([options[0].cost for options in groups][::-1])[::-1], 0.0)
    cost, loss = np.zeros(1), np.zeros(1)
    trace: list[_Step] = []
    bound = known
    for depth, options in enumerate(groups):
        grown_cost = (cost[:, None] + [option.cost for option in options]).ravel()
        grown_loss = (loss[:, None] + [option.loss for option in options]).ravel()
        reachable = grown_loss + rest[depth + 1] - multiplier * (budget - grown_cost)
        alive = np.flatnonzero((grown_cost + least[depth + 1] <= budget) & (reachable < known))
        alive = alive[np.lexsort((grown_loss[alive], grown_cost[alive]))]
        before = np.minimum.accumulate(np.append(np.inf, grown_loss[alive]))[:-1]
        alive = alive[grown_loss[alive] < before]
        if len(alive) > MAX_STATES:
            order = np.argsort(reachable[alive])
            bound = min(bound, float(reachable[alive[order[MAX_STATES]]]))
            alive = alive[np.sort(order[:MAX_STATES])]
        if not len(alive):
            return None, bound
        trace.append(np.divmod(alive, len(options)))
        cost, loss = grown_cost[alive], grown_loss[alive]
    state = int(np.argmin(loss))
    best = float(loss[state])
    chosen: list[Option] = []
    for options, (parent, option) in zip(reversed(groups), reversed(trace), strict=True):
        chosen.append(options[int(option[state])])
        state = int(parent[state])
    return chosen[::-1], min(bound, best)
