"""Scores of a masked language model: how well it tells hidden residues, and how far two models' answers differ."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from protquant.errors import ProtquantError

__all__ = ["logit_kl", "masked_accuracy", "negative_log_likelihood", "pseudo_perplexity"]


def masked_accuracy(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Share of hidden tokens that the model holds the most probable.

    Parameters
    ----------
    logits : ndarray, shape (n, v)
        What the model says at n hidden positions, over its whole alphabet of v tokens.
    truth : ndarray of int, shape (n,)
        The tokens that were hidden.

    Returns
    -------
    float
        Between 0 and 1; NaN without positions.

    Raises
    ------
    ProtquantError
        If the shapes do not fit or a logit is not finite.
    """
    values, tokens = _checked(logits, truth)
    return float((values.argmax(axis=1) == tokens).mean()) if len(tokens) else float("nan")


def negative_log_likelihood(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Mean of -ln p(hidden token) over positions, in nats; arguments, NaN and errors as for `masked_accuracy`."""
    values, tokens = _checked(logits, truth)
    if not len(tokens):
        return float("nan")
    return float(-log_softmax(values, axis=1)[np.arange(len(tokens)), tokens].mean())


def pseudo_perplexity(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Among how many tokens, equally probable, the model may be said to choose: exp of the mean of -ln p.

    1 is certainty, and a model that knows nothing of the 20 residues has 20. Arguments, NaN and errors as for
    `masked_accuracy`.

    Notes
    -----
    Salazar et al. 2020 hide one position at a time; what was hidden together is the caller's to say.
    """
    return float(np.exp(negative_log_likelihood(logits, truth)))


def logit_kl(logits: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Mean over positions of the Kullback-Leibler divergence KL(reference || logits), in nats.

    Parameters
    ----------
    logits, reference : ndarray, shape (n, v)
        What the two models say at the same positions; the reference is the float model's.

    Returns
    -------
    float
        At least 0, up to rounding; NaN without positions.

    Raises
    ------
    ProtquantError
        If the shapes differ or a logit is not finite.
    """
    ours, theirs = _finite(logits), _finite(reference)
    if ours.shape != theirs.shape:
        raise ProtquantError(f"logits of shapes {ours.shape} and {theirs.shape}: both must be of the same positions.")
    if not len(ours):
        return float("nan")
    log_q, log_p = log_softmax(ours, axis=1), log_softmax(theirs, axis=1)
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def _finite(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2:
        raise ProtquantError(f"logits of shape {values.shape}: must be (n, v), a row for each position.")
    if not np.isfinite(values).all():
        raise ProtquantError("a logit is not finite: the prediction is broken, so it cannot be scored.")
    return values


def _checked(
    logits: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    values, tokens = _finite(logits), np.asarray(truth)
    if tokens.shape != values.shape[:1]:
        raise ProtquantError(f"logits of {len(values)} positions and {tokens.shape} tokens: one token a position.")
    return values, tokens
