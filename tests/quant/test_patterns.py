"""Patterns of names."""

import pytest

from protquant.errors import ProtquantError
from protquant.quant.patterns import Pattern, matches_any

NAME = "lm.layers.12.attn.q_proj.weight"


@pytest.mark.parametrize("pattern", ["lm.*", "*.q_proj.weight", r"re:lm\.layers\.\d+\..*", "lm.layers.1[0-9].attn.?_*"])
def test_globs_and_regular_expressions_match_whole_names(pattern: str):
    assert Pattern("recipe", pattern).fullmatch(NAME)
    assert not Pattern("recipe", pattern).fullmatch(f"x.{NAME}s")
    assert matches_any(NAME, ["x", pattern])


@pytest.mark.parametrize("pattern", ["re:(", "re:[", "re:a{2,1}", "re:*"])
def test_what_is_no_regular_expression_is_refused(pattern: str):
    with pytest.raises(ProtquantError, match=r"recipe: .* is no regular expression"):
        Pattern("recipe", pattern)


def test_a_pattern_that_takes_for_ever_is_refused():
    with pytest.raises(ProtquantError, match="takes more than 1 s to be compared"):
        Pattern("recipe", r"re:(.|..)+(?<!t)").fullmatch(NAME * 3)
