"""Circuits from recordings: parameters by maximum likelihood, and what the data say about each."""

from organics.data.recordings.recording import Channel, CrossSpectra, Recording, TimeCourses
from organics.data.recordings.summary import Settings, read_recording
from organics.fitting.comparison import Comparison, compare
from organics.fitting.fit import Estimate, Fit, fit
from organics.fitting.identifiability import Direction

__all__ = [
    "Channel",
    "Comparison",
    "CrossSpectra",
    "Direction",
    "Estimate",
    "Fit",
    "Recording",
    "Settings",
    "TimeCourses",
    "compare",
    "fit",
    "read_recording",
]


def __dir__() -> list[str]:
    return __all__
