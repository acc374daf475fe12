"""The choice of formats is the best there is within the budget."""

import itertools
import random

import pytest

from protquant.errors import ProtquantError
from protquant.quant import allocation
from protquant.quant.allocation import Option, allocate


def random_problem(seed: int, groups: int, formats: int, whole: bool = False) -> dict[str, list[Option]]:
    draw = random.Random(seed)
    problem = {}
    for g in range(groups):
        size = draw.choice([1, 4, 4, 16]) if whole else draw.uniform(0.5, 20)
        weight = draw.lognormvariate(0, 2)
        problem[f"g{g}"] = [
            Option(f"{b}", size * (b if whole else b + draw.uniform(0, 0.5)), weight * 4.0**-b * draw.uniform(0.3, 3))
            for b in range(2, 2 + formats)
        ]
    return problem


def brute_force(problem: dict[str, list[Option]], budget: float) -> float:
    return min(
        sum(option.loss for option in chosen)
        for chosen in itertools.product(*problem.values())
        if sum(option.cost for option in chosen) <= budget + 1e-9
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_optimum_of_brute_force(seed: int, whole: bool):
    problem = random_problem(seed, groups=6, formats=4, whole=whole)
    least, most = (sum(pick(o.cost for o in options) for options in problem.values()) for pick in (min, max))
    for share in (0.0, 0.1, 0.35, 0.6, 0.9, 1.0):
        budget = least + share * (most - least)
        found = allocate(problem, budget)
        assert found.cost <= budget * (1 + 1e-8)
        assert found.loss == pytest.approx(brute_force(problem, budget), rel=1e-9)
        assert found.bound == pytest.approx(found.loss, rel=1e-9)


def test_the_fewest_bits_within_a_drift_are_the_same_problem_turned_around():
    problem = random_problem(3, groups=6, formats=4)
    turned = {group: [Option(o.name, o.loss, o.cost) for o in options] for group, options in problem.items()}
    drift = 0.3 * sum(options[0].loss for options in problem.values())
    found = allocate(turned, drift)
    assert found.cost <= drift
    assert found.loss == pytest.approx(brute_force(turned, drift))


def test_many_groups_are_searched_in_no_time():
    problem = random_problem(1, groups=300, formats=6)
    budget = sum(options[0].cost for options in problem.values()) * 1.6
    found = allocate(problem, budget)
    assert 0.999 * budget < found.cost <= budget * (1 + 1e-8)
    assert found.loss <= found.bound * 1.001


def test_a_search_that_was_cut_short_says_how_far_off_it_can_be(monkeypatch: pytest.MonkeyPatch):
    problem = random_problem(5, groups=8, formats=4)
    budget = sum(options[1].cost for options in problem.values())
    best = allocate(problem, budget).loss
    monkeypatch.setattr(allocation, "MAX_STATES", 1)
    found = allocate(problem, budget)
    assert found.bound <= best * (1 + 1e-9) <= found.loss * (1 + 1e-9) ** 2


def test_an_option_that_is_worse_with_more_bits_is_not_taken():
    options = [Option("2", 2, 1.0), Option("3", 3, 5.0), Option("4", 4, 0.5)]
    assert allocate({"a": options}, 3.5).options["a"].name == "2"
    assert allocate({"a": options}, 100).options["a"].name == "4"


def test_what_cannot_be_chosen_is_said():
    with pytest.raises(ProtquantError, match="budget of 1 is less than 2, which the cheapest options take"):
        allocate({"a": [Option("2", 2, 1.0)]}, 1)
    with pytest.raises(ProtquantError, match="a: there is no option"):
        allocate({"a": []}, 1)
    with pytest.raises(ProtquantError, match="a, 2: cost 2 and loss nan are no numbers"):
        allocate({"a": [Option("2", 2, float("nan"))]}, 3)
