"""Options of `fold` against the parameters of `fold_fasta`."""

import inspect

from protquant.cli.folding import fold
from protquant.predicting import fold_fasta


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    options = {name: each.default for name, each in inspect.signature(fold).parameters.items()}
    for name, parameter in inspect.signature(fold_fasta).parameters.items():
        # A text with commas in the one, a sequence in the other; and what only programs give.
        if name not in ("skip_output", "on_batch"):
            assert options[name] == parameter.default, name
