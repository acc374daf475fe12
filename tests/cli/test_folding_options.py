"""Options of `fold` against the parameters of `fold_fasta`."""

import inspect

from protquant.cli.folding import fold
from protquant.pipelines import fold_fasta


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    options = {name: each.default for name, each in inspect.signature(fold).parameters.items()}
    for name, parameter in inspect.signature(fold_fasta).parameters.items():
        if name != "skip_output":  # a text with commas here, a sequence there
            assert options[name] == parameter.default, name
