"""A target of `organics reproduce`, its input, and its result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from organics.machine.cluster import Submit

Verdict = Literal["holds", "partly", "does not hold", "not run", "undecided"]


@dataclass(frozen=True)
class Target:
    """One figure, table or claim, of the paper or beyond it.

    Attributes
        name: of its module.
        title: what it is.
        claim: the tested claim, in one sentence.
        source: where in the paper; "ours" if it goes beyond the paper.
        paper: the paper's number or finding, for the table; None if there is none.
        needs: what it needs: data sets by name, "trained runs".
        minutes: about how long it takes on 2 cores.
        looks_for_runs: whether the result depends on which trained runs exist, so that it is always
            computed again.
        trains: whether it trains networks: with `quick` they learn too little for a verdict against
            the claim.
        network: name of the network that it trains and examines, if it shares that with other
            targets.
        in_pieces: whether it hands its longest work to the `submit` of its job.
        alone: whether no other target may run beside it, because it uses all processors or measures
            time.
        room: "paper", or "ours" if it goes beyond the paper: the folder of its module, and of its
            stored result.
    """

    name: str
    title: str
    claim: str
    source: str
    minutes: float
    paper: str | None = None
    needs: tuple[str, ...] = ()
    looks_for_runs: bool = False
    trains: bool = False
    network: str | None = None
    in_pieces: bool = False
    alone: bool = False
    room: Literal["paper", "ours"] = "paper"


def _ignore(fraction: float, what: str = "") -> None:
    """Default `progress`: does nothing."""


@dataclass(frozen=True)
class Job:
    """The input of a target.

    Attributes
        quick: smaller samples of the same code, a few seconds on one core.
        seed: seed of all random numbers.
        folder: for the pieces of a long target, so that it can be interrupted; need not exist, and
            is kept afterwards.
        runs: folders with trained runs; new runs go into the first.
        out: folder of the results, for further files besides pictures and numbers.
        submit: runs its pieces in other processes (see `organics.machine.side_by_side.workers`); by
            default they run in this one.
        progress: call it now and then with the fraction done and, if that changes, the current
            activity.
    """

    folder: Path
    quick: bool = False
    seed: int = 0
    runs: tuple[Path, ...] = (Path("runs"),)
    out: Path = Path("reproduction")
    submit: Submit | None = None
    progress: Callable[..., None] = _ignore


class Check(NamedTuple):
    """One computed comparison of the claim with the result.

    Attributes
        what: the statement.
        here: the result, in words and numbers.
        holds: whether the statement is true; None if it was not run.
        paper: the paper's number.
        tolerance: the allowed difference, or the criterion.
        decides: whether it counts for the verdict; if not, it is additional information.
    """

    what: str
    here: str
    holds: bool | None
    paper: str | None = None
    tolerance: str | None = None
    decides: bool = True


class Table(NamedTuple):
    """Rows of text under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """The result of a target.

    Attributes
        here: the finding, for the table beside the paper's.
        checks: the comparisons, including those that do not decide.
        numbers: the numbers behind the picture, as plain values or small arrays, for the JSON file.
        table: the table, if the target is one.
        data: further input of `draw`; not written.
    """

    here: str
    checks: Sequence[Check]
    numbers: dict[str, Any]
    table: Table | None = None
    data: Any = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict:
        """Computed from the deciding checks that were run: all, some or none hold."""
        answers = [check.holds for check in self.checks if check.decides]
        run = [answer for answer in answers if answer is not None]
        if not run:
            return "not run"
        if all(run):
            return "holds" if len(run) == len(answers) else "partly"
        return "partly" if any(run) else "does not hold"
