"""Responses of circuits and hierarchies as physiologists measure them."""

from organics.responses.contrast import (
    NakaRushton,
    Responses,
    contrast_response,
    fit_naka_rushton,
    naka_rushton,
)
from organics.responses.figures import draw_contrast, draw_onset, draw_rhythm
from organics.responses.gain import GainChange, gain_change, with_gain
from organics.responses.onset import Onset, onset_response
from organics.responses.rhythm import Rhythm, gamma_peak

__all__ = [
    "GainChange",
    "NakaRushton",
    "Onset",
    "Responses",
    "Rhythm",
    "contrast_response",
    "draw_contrast",
    "draw_onset",
    "draw_rhythm",
    "fit_naka_rushton",
    "gain_change",
    "gamma_peak",
    "naka_rushton",
    "onset_response",
    "with_gain",
]


def __dir__() -> list[str]:
    return __all__
