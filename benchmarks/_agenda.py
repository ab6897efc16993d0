"""The measurements of a benchmark, with progress messages and a time limit."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from benchmarks._clock import Clock
from benchmarks._progress import Progress

LEAST = 5
"""Least number of rounds for a median."""


class NoTime(Exception):
    """There is not enough time for the rounds of a median."""


class Measurement(NamedTuple):
    """A measurement, and about how long it takes on two cores.

    Attributes
        what: its name.
        before: seconds before the first round, for set-up and compilation.
        each: seconds of a round.
        take: runs the measurement.
    """

    what: str
    before: float
    each: float
    take: Callable[[], Any]

    def seconds(self, rounds: int) -> float:
        """Seconds for so many rounds."""
        return self.before + rounds * self.each


class Agenda:
    """Runs the measurements of a benchmark, one after another, and notes those left out.

    Progress is shown only between measurements and rounds: nothing else runs during timing.

    Attributes
        name: of the benchmark.
        measured: whether anything was measured.
        left_out: what was not measured, and why.
    """

    def __init__(
        self,
        name: str,
        rounds: int,
        *,
        quick: bool = False,
        seconds: float | None = None,
        clock: Clock | None = None,
        stream: TextIO | None = None,
    ):
        """Start the clock.

        Arguments
            name: of the benchmark.
            rounds: rounds of each measurement; with too little time fewer, but at least `LEAST`.
            quick: two rounds of small sizes.
            seconds: limit for all measurements together; then the current one stops, without a
                result if it has had fewer than `LEAST` rounds.
            clock: by default the machine's.
            stream: for progress messages; by default standard error.

        Raises `ValueError` for fewer `rounds` than `LEAST` and as `positive_seconds` does.
        """
        if rounds < LEAST:
            raise ValueError(f"`rounds` must be at least {LEAST}, for a median, not {rounds}.")
        self.name = name
        self.measured = False
        self.left_out: list[dict[str, str]] = []
        self._rounds = 2 if quick else rounds
        self._quick = quick
        self._limit = math.inf if seconds is None else positive_seconds(seconds)
        self._clock = Clock() if clock is None else clock
        self._begin = self._clock.now()
        self._progress = Progress(sys.stderr if stream is None else stream)
        self._expected = self._spent = 0.0  # seconds of what was measured so far
        self._now = ""
        self._to_come: list[Measurement] = []
        self._end = 0.0  # expected end of the last measurement
        self._done = 0  # rounds of the current measurement

    def take(self, measurements: Sequence[Measurement]) -> dict[str, Any]:
        """The result of each measurement by name; those without enough time are left out."""
        found = {}
        self._to_come = [one._replace(each=0.0) if self._quick else one for one in measurements]
        try:
            for number in range(1, len(measurements) + 1):
                one = self._to_come[0]
                self._now = f"{self.name} {number} of {len(measurements)}: {one.what}"
                try:
                    found[one.what] = self._measure(one)
                except NoTime:
                    self.leave_out(one.what, "no time")
                del self._to_come[0]
        finally:
            self._progress.clear()
        self.measured = self.measured or bool(found)
        return found

    def _measure(self, one: Measurement) -> Any:
        begin = self.seconds()
        self._done = 0
        self._end = begin + self._needed(self._to_come, self._rounds)
        self._require(self._needed([one], self._least))
        self._progress.step(self._text())
        with self._clock.alarm(self._limit - begin, self._break_off):
            found = one.take()
        self._expected += one.seconds(self._done)
        self._spent += self.seconds() - begin
        return found

    def leave_out(self, what: str, why: str) -> None:
        """Report, here and in the result, that something is not measured."""
        self.left_out.append({"what": what, "why": why})
        self._progress.line(f"{self.name}: {what}: left out: {why}")

    def rounds(self) -> Iterator[int]:
        """The rounds of the current measurement, as many as the time allows.

        Raises `NoTime` as soon as the time cannot suffice for `LEAST` rounds.
        """
        each = self._pace * self._to_come[0].each
        owed = self._owed(self._least * each)
        later = self._needed(self._to_come[1:], self._rounds)
        begin = self.seconds()
        for done in range(self._rounds):
            if done < self._least:
                self._require((self._least - done) * each)
            elif not self._is_time_for(each + owed):
                return
            self._end = self.seconds() + (self._rounds - done) * each + later
            self._progress.show(self._text(f", round {done + 1} of {self._rounds}"))
            yield done
            self._done = done + 1
            each = (self.seconds() - begin) / self._done

    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.now() - self._begin

    @property
    def _pace(self) -> float:
        """Measured seconds per expected second on this machine."""
        return self._spent / self._expected if self._expected else 1.0

    @property
    def _least(self) -> int:
        return min(self._rounds, LEAST)

    def _needed(self, measurements: Sequence[Measurement], rounds: int) -> float:
        return self._pace * sum(one.seconds(rounds) for one in measurements)

    def _owed(self, before: float) -> float:
        """Seconds to reserve for the later measurements that still fit after `before` seconds."""
        owed = 0.0
        for later in self._to_come[1:]:
            needed = self._needed([later], self._least)
            if self._is_time_for(before + owed + needed):
                owed += needed
        return owed

    def _is_time_for(self, seconds: float) -> bool:
        return self.seconds() + seconds <= self._limit

    def _require(self, seconds: float) -> None:
        if not self._is_time_for(seconds):
            raise NoTime

    def _break_off(self) -> None:
        """The limit is reached: stop a measurement that has no median yet."""
        if self._done < self._least:
            raise NoTime

    def _text(self, round_: str = "") -> str:
        now = self.seconds()
        end = max(now, min(self._end, self._limit))
        return f"{self._now}{round_}; {now:.0f} s of about {end:.0f} s"


def positive_seconds(seconds: float) -> float:
    """The time limit, checked.

    Raises `ValueError` unless it is positive and finite.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"`seconds` must be positive and finite, not {seconds}.")
    return seconds
