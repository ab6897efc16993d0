"""What a target of `organics reproduce` is, what it is given, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from organics.machine.cluster import Cluster

Verdict = Literal["holds", "partly", "does not hold", "not run", "undecided"]


@dataclass(frozen=True)
class Target:
    """One figure, table or claim of the paper.

    Attributes
        name: of its module in this package.
        title: what it is.
        claim: what is put to the test, in one sentence.
        source: where in the paper; "ours" for what goes beyond it.
        paper: the paper's number or finding, as it is to stand in a table; None if it has none.
        needs: what it reads: data sets by name, "trained runs".
        minutes: about how long the whole takes on 2 cores.
        looks_for_runs: whether what it says depends on which trained runs there are, so that an
            earlier result is never taken for the answer.
        trains: whether it trains networks: those of a `quick` run learn too little for a verdict
            against the claim.
        network: name of the network that it trains and looks into, if others do so, too.
        alone: whether no other target is made beside it, as it is long and keeps all processors
            busy by itself, or takes the time of something.
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
    alone: bool = False


def _ignore(fraction: float, what: str = "") -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Job:
    """What a target is asked to do.

    Attributes
        quick: smaller samples of the same code, a few seconds on one core.
        seed: decides whatever is random.
        folder: for what a long target keeps while it is under way, so that it can be interrupted;
            it need not exist, and is kept afterwards.
        runs: folders in which trained runs are looked for; a target that trains does so in the
            first.
        out: folder of the results, for what a target leaves there besides pictures and numbers.
        processes: how many of its pieces are made side by side, as in
            `organics.machine.side_by_side`.
        cluster: that makes the pieces instead, if any.
        progress: to be called now and then with the fraction that is done and, if that changes,
            with what is being done.
    """

    folder: Path
    quick: bool = False
    seed: int = 0
    runs: tuple[Path, ...] = (Path("runs"),)
    out: Path = Path("reproduction")
    processes: int = 1
    cluster: Cluster | None = None
    progress: Callable[..., None] = _ignore


class Check(NamedTuple):
    """One computed comparison between the claim and what was found.

    Attributes
        what: the statement.
        here: what was found, in words and numbers.
        holds: whether the statement is true of it; None if it was not run.
        paper: the paper's number.
        tolerance: how far the two may be apart, or what decides.
        decides: whether it is the claim that is compared, or something besides that is worth
            knowing and that the verdict leaves alone.
    """

    what: str
    here: str
    holds: bool | None
    paper: str | None = None
    tolerance: str | None = None
    decides: bool = True


class Table(NamedTuple):
    """Rows of text under the names of their columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What a target found.

    Attributes
        here: the finding, as it is to stand in a table beside the paper's.
        checks: the comparisons, those that decide the verdict and others.
        numbers: what is behind the picture, as plain values or small arrays, for the JSON file.
        table: the target as a table, where it is one.
        data: what else `draw` needs; not written.
    """

    here: str
    checks: Sequence[Check]
    numbers: dict[str, Any]
    table: Table | None = None
    data: Any = field(default=None, repr=False)

    @property
    def verdict(self) -> Verdict:
        """Computed from the checks that decide: all, some or none hold, of those that were run."""
        answers = [check.holds for check in self.checks if check.decides]
        run = [answer for answer in answers if answer is not None]
        if not run:
            return "not run"
        if all(run):
            return "holds" if len(run) == len(answers) else "partly"
        return "partly" if any(run) else "does not hold"
