"""`organics reproduce`"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer, note
from organics.cli.workers import Workers


@dataclass(frozen=True)
class Reproduce:
    """Figures, tables and claims of the paper, and studies beyond it, each with its verdict.

    Each target writes NAME.png, NAME.svg and NAME.json (numbers, verdict, command, versions,
    machine) into a folder; its report.html shows all of them. Complete targets are not run again,
    and a failed one does not stop the others. Targets, and the pieces of long ones, run in
    parallel: by default one per processor, on a GPU one.

    Example: organics reproduce fig1 theorem1 --quick
    """

    targets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Names of targets; --list shows them."""
    all: bool = False
    """All targets of the paper; name those that go beyond it."""
    list: bool = False
    """List the targets: what each needs, and its result so far."""
    quick: bool = False
    """Smaller samples: all targets in a few minutes."""
    force: bool = False
    """Run complete targets again, except for training runs that exist."""
    out: Path = Path("runs/paper")
    """Folder for the results."""
    runs: tuple[Path, ...] = (Path("runs"), Path("results/trained"))
    """Folders of trained runs: all are searched, new runs go into the first."""
    seed: int = 0
    """Seed of all random numbers."""
    quiet: bool = False
    """No progress bar."""
    check: bool = False
    """Exit with 1 unless at least one claim was tested and all tested ones hold. (A failed target
    always gives 1.)"""
    json: bool = False
    """One JSON document on standard output."""
    workers: Workers = field(default_factory=Workers)

    def run(self) -> Answer:
        from organics.studies.catalog import PAPER, TARGETS, named

        wanted = named(self.targets)  # refuses unknown names
        if self.list:
            return _overview(wanted or TARGETS, self.out)
        if bool(self.targets) == self.all:
            raise ValueError("name targets, or say --all, or --list to see which there are.")
        return self._reproduce(PAPER if self.all else wanted)

    def _reproduce(self, targets) -> Answer:
        from organics.studies.harness import report
        from organics.studies.harness.runner import reproduce

        cluster = self.workers.cluster()
        with _Bars(len(targets), visible=not self.quiet) as bars:
            results = reproduce(
                targets,
                self.out,
                quick=self.quick,
                seed=self.seed,
                runs=self.runs,
                force=self.force,
                processes=self.workers.processes,
                cluster=cluster,
                on_progress=bars.progress,
                on_result=bars.finish,
            )
        page = report.write(self.out)
        failed = [result for result in results if result.document is None]
        for result in failed:
            note(f"organics: {result.target.name} failed: {result.error}")
        document = {
            "out": self.out,
            "report": page,
            "targets": [
                {"name": result.target.name, "kept": result.kept, "error": result.error}
                | ({} if result.document is None else _brief(result.document))
                for result in results
            ],
        }
        verdicts = [result.document["verdict"] for result in results if result.document]
        hold = "holds" in verdicts and set(verdicts) <= {"holds", "not run", "undecided"}
        text = [_table(results), f"report: {page}"]
        return Answer(document, text, positive=not failed and (hold or not self.check))


class _Bars:
    """A bar for all targets and one for each running target, on standard error."""

    def __init__(self, count: int, visible: bool):
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), disable=not visible)
        self._overall = self._progress.add_task(f"all {count}", total=count)
        self._under_way = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def progress(self, target, fraction: float, what: str) -> None:
        if target.name not in self._under_way:
            self._under_way[target.name] = self._progress.add_task("", total=1.0)
        words = f"{target.name}: {what}" if what else target.name
        self._progress.update(self._under_way[target.name], completed=fraction, description=words)

    def finish(self, result) -> None:
        verdict = "failed" if result.document is None else result.document["verdict"]
        if result.kept:
            verdict += _KEPT
        if result.target.name in self._under_way:
            self._progress.remove_task(self._under_way.pop(result.target.name))
        self._progress.advance(self._overall)
        if not self._progress.disable:
            self._progress.console.print(f"{result.target.name}: {verdict}", highlight=False)


_KEPT = ", from before (--force to do it again)"
_BRIEF = ("title", "verdict", "paper", "here", "seconds", "quick")


def _brief(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in _BRIEF}


def _table(results):
    from rich.table import Table

    from organics.studies.harness.runner import but_not, verdict_in_words

    table = Table("target", "paper", "here", "verdict", box=None)
    for result in results:
        if result.document is None:
            table.add_row(result.target.name, result.target.paper or "", result.error, "failed")
        else:
            found = result.document
            verdict = verdict_in_words(found)
            if result.kept:
                verdict += _KEPT
            if failed := but_not(found):
                verdict += f"; {failed}"
            table.add_row(result.target.name, found["paper"] or "", found["here"], verdict)
    return table


def _overview(targets, out: Path) -> Answer:
    from rich.table import Table

    from organics.studies.harness.runner import read, verdict_in_words

    table = Table(box=None)
    longest = max(len(target.name) for target in targets)  # never truncated
    least = {"target": longest, "what": 10, "needs": 5, "minutes": 7, "last verdict": 12}
    for name, width in least.items():
        table.add_column(name, no_wrap=True, min_width=width)
    rows = []
    for target in targets:
        last = read(target, out)
        row = {
            "name": target.name,
            "title": target.title,
            "claim": target.claim,
            "source": target.source,
            "paper": target.paper,
            "needs": target.needs,
            "minutes": target.minutes,
            "last": None if last is None else _brief(last),
        }
        rows.append(row)
        said = "" if last is None else verdict_in_words(last)
        needs, minutes = ", ".join(target.needs), f"{target.minutes:g}"
        table.add_row(target.name, target.title, needs, minutes, said)
    return Answer({"out": out, "targets": rows}, [table])


COMMANDS = Reproduce
