"""The predicted aligned error as rows of ModelCIF's category `_ma_qa_metric_local_pairwise`."""

import io

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_pairwise_scores"]

_FIRST = "\0"  # placeholder of the first residue
_COLUMNS = (
    *("ordinal_id", "model_id", "label_asym_id_1", "label_seq_id_1", "label_comp_id_1"),
    *("label_asym_id_2", "label_seq_id_2", "label_comp_id_2", "metric_id", "metric_value"),
)


def write_pairwise_scores(
    stream: io.StringIO,
    scores: NDArray[np.floating],
    residues: list[tuple[str, int, str]],
    model: str | int,
    metric: str | int,
) -> None:
    """Add scores of all ordered pairs of residues to an mmCIF file, as the last category of its data block.

    For 1,000 residues this takes 0.8 s; modelcif, which writes value by value, takes 24 s.

    Parameters
    ----------
    stream : StringIO
        Content of the file so far; it ends with a line end.
    scores : ndarray, shape=(n, n)
        Score of the second residue (column) if the first (row) is superimposed; written with two decimals.
    residues : list of (chain, number, name)
        The n residues.
    model, metric : str or int
        The `id` of the model in `_ma_model_list`, and of the metric in `_ma_qa_metric`.
    """
    stream.write("#\nloop_\n")
    stream.writelines(f"_ma_qa_metric_local_pairwise.{column}\n" for column in _COLUMNS)
    names = [f"{chain} {number} {name}" for chain, number, name in residues]
    # A template for all rows of a first residue: formatting row by row takes four times as long.
    template = "".join(f"%d {model} {_FIRST} {name} {metric} %.2f\n" for name in names)
    fields: list[float] = [0] * (2 * len(names))
    for index, (name, row) in enumerate(zip(names, scores.tolist(), strict=True)):
        fields[0::2] = range(index * len(names) + 1, (index + 1) * len(names) + 1)
        fields[1::2] = row
        stream.write(template.replace(_FIRST, name) % tuple(fields))
    stream.write("#\n")
