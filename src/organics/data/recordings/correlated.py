"""How many samples in a row fluctuate together."""

import numpy as np
from jaxtyping import Float

_ORDER = 10  # of the largest autoregression that is tried
_GRID = 512  # frequencies at which its spectrum is looked at


def samples_together(trials: Float[np.ndarray, "trials times"]) -> float:
    """How many samples in a row count as one when a smooth course is fitted to their mean.

    It is the peak of the spectrum of their fluctuations over that of independent ones with the same
    variance, by the autoregression that Akaike's criterion chooses; at least 1, and at most all,
    as where each trial has another gain and little else differs.
    Fluctuations with the correlation time `tau`, sampled at intervals `dt`, have `2 tau / dt`.
    Fluctuations that ring count by their peak, so that no course has too little error.
    """
    count, size = trials.shape
    about = trials - trials.mean(axis=0)
    most = min(_ORDER, size // 4)
    lagged = np.array([np.mean(about[:, : size - k] * about[:, k:]) for k in range(most + 1)])
    found = _autoregression(lagged / lagged[0], count * size)
    if found is None:
        return float(size)
    phi, left = found
    w = np.exp(-1j * np.outer(np.linspace(0, np.pi, _GRID), np.arange(1, len(phi) + 1)))
    return float(np.clip(left / np.min(np.abs(1 - w @ phi)) ** 2, 1, size))


def _autoregression(
    rho: Float[np.ndarray, " lags"], size: int
) -> tuple[Float[np.ndarray, " order"], float] | None:
    """The coefficients for these autocorrelations, and the share of the variance that is new in
    each sample; of the order that Akaike's criterion chooses for so many samples. None where they
    do not decay: then no autoregression has them."""
    phi, left = np.zeros(0), 1.0
    best, chosen = 0.0, (phi, left)
    for order in range(1, len(rho)):  # Levinson's recursion
        reflection = (rho[order] - phi @ rho[order - 1 : 0 : -1]) / left
        if reflection >= 1:
            return None
        if reflection <= -1:
            break
        phi = np.append(phi - reflection * phi[::-1], reflection)
        left *= 1 - reflection**2
        if (worth := size * np.log(left) + 2 * order) < best:
            best, chosen = worth, (phi, left)
    return chosen
