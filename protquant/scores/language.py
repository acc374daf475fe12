"""Scores of a masked language model: accuracy at masked residues, and difference between two models."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from protquant.errors import ProtquantError

__all__ = ["logit_kl", "masked_accuracy", "negative_log_likelihood", "pseudo_perplexity"]


def masked_accuracy(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return the fraction of masked tokens to which the model gives the largest probability.

    Parameters
    ----------
    logits : ndarray, shape (n, v)
        Output of the model at n masked positions, over its whole alphabet of v tokens.
    truth : ndarray of int, shape (n,)
        The masked tokens.

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
    """Return the mean of -ln p(masked token), in nats; arguments, NaN and errors as for `masked_accuracy`."""
    values, tokens = _checked(logits, truth)
    if not len(tokens):
        return float("nan")
    return float(-log_softmax(values, axis=1)[np.arange(len(tokens)), tokens].mean())


def pseudo_perplexity(logits: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Return exp(mean of -ln p): the number of equally probable tokens with the same uncertainty.

    1 means certainty, and 20 a uniform guess among the 20 residues. Arguments, NaN and errors as for
    `masked_accuracy`.

    Notes
    -----
    Salazar et al. 2020 mask one position at a time; the caller decides which positions are masked together.
    """
    return float(np.exp(negative_log_likelihood(logits, truth)))


def logit_kl(logits: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return the mean over positions of the Kullback-Leibler divergence KL(reference || logits), in nats.

    Parameters
    ----------
    logits, reference : ndarray, shape (n, v)
        Outputs of the two models at the same positions; the reference is the float model's.

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
