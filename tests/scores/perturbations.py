"""Perturbed copies of C-alpha traces, made again exactly from a seed."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "perturb"]

KINDS = ("noise", "smooth", "hinge", "partial")


def perturb(ca: NDArray[np.float64], kind: str, magnitude: float, dropped: float, seed: int) -> NDArray[np.float64]:
    """Perturb a trace, move it rigidly, drop residues, and round as a PDB file does.

    Parameters
    ----------
    ca : ndarray, shape (n, 3)
        Angstrom.
    kind : str
        ``noise`` moves every atom by itself, ``smooth`` bends the chain by a few low frequencies, ``hinge`` turns
        all that follows a residue, ``partial`` moves a stretch of a third to two thirds of the chain.
    magnitude : float
        Root mean square displacement in angstrom over the atoms that move (for ``hinge`` about that, while the
        angle is below half a turn).
    dropped : float
        Fraction of residues that go missing (NaN).
    seed : int

    Returns
    -------
    ndarray, shape (n, 3)
        Three decimals.
    """
    random = np.random.RandomState(seed)  # its stream is frozen for good, that of Generator is not
    count = len(ca)
    moved = ca.copy()
    if kind == "noise":
        moved += magnitude / np.sqrt(3) * random.standard_normal((count, 3))
    elif kind == "smooth":
        position = np.linspace(0.0, 2 * np.pi, count)[:, None]
        waves = np.zeros((count, 3))
        for frequency in (0.5, 1.0, 1.7, 2.6):
            waves += random.standard_normal(3) * np.sin(frequency * position + random.uniform(0, 2 * np.pi))
        moved += waves * magnitude / np.sqrt((waves**2).sum(axis=1).mean())
    elif kind == "hinge":
        hinge = random.randint(count // 5, count - count // 5)
        arm = ca[hinge:] - ca[hinge]
        angle = min(magnitude / np.sqrt((arm**2).sum(axis=1).mean()), np.pi)
        moved[hinge:] = arm @ _rotation(random.standard_normal(3), angle).T + ca[hinge]
    elif kind == "partial":
        length = int(count * random.uniform(1 / 3, 2 / 3))
        first = random.randint(0, count - length)
        moved[first : first + length] += magnitude / np.sqrt(3) * random.standard_normal((length, 3))
    else:
        raise ValueError(f"unknown kind {kind!r}")
    turned = moved @ _rotation(random.standard_normal(3), random.uniform(0, np.pi)).T
    turned += random.uniform(-50, 50, 3)
    turned[random.permutation(count)[: int(dropped * count)]] = np.nan
    return np.round(turned, 3)


def _rotation(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rotation by `angle` radians about `axis` (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
