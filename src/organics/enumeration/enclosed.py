"""What is proved of all steady states of a circuit; the proofs themselves take time to import."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Outcome = Literal["all, proved", "at least these, proved", "undecided"]
ALL, AT_LEAST, UNDECIDED = "all, proved", "at least these, proved", "undecided"


class Enclosed(NamedTuple):
    """What is proved of all steady states.

    Attributes
        outcome: "all, proved": these and no others. "at least these, proved": these, and nothing is
            known of the boxes that remain. "undecided": some box that remains cannot be decided.
        why: the reason, in words.
        how: how the states were found, in words.
        v: the states, each in a box that holds no other, shape (k, n).
        boxes: number of boxes examined.
        remaining: boxes of `v` in which others may be, shape (m, 2, n): lower and upper corners.
    """

    outcome: Outcome
    why: str
    how: str
    v: Float[np.ndarray, "k n"]
    boxes: int
    remaining: Float[np.ndarray, "m 2 n"]
