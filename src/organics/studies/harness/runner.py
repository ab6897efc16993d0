"""Runs targets, each with its own files; a failure does not stop the others."""

import json
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from organics.files.atomic import write_atomically
from organics.files.plain import as_plain
from organics.machine.cluster import Cluster
from organics.machine.provenance import machine, versions
from organics.machine.side_by_side import GLANCE, how_many, workers
from organics.plots import save_figure
from organics.studies.harness.pieces import seconds_spent
from organics.studies.harness.target import Job, Outcome, Target, Verdict

_WORK = "under-way"  # folder, beside the results, for the pieces of unfinished targets


# keys of a result: a file without them is of another version, or not a result
_KEYS = {"name", "title", "claim", "source", "paper", "here", "verdict", "checks", "table",
         "command", "quick", "seed", "seconds", "versions", "machine", "pictures", "numbers",
         "caption"}  # fmt: skip


class Result(NamedTuple):
    """The result of running one target.

    Attributes
        target: the target.
        document: the content of its JSON file; None if it failed.
        error: what went wrong, if it failed.
        kept: whether it was complete before and not run again.
    """

    target: Target
    document: dict[str, Any] | None
    error: str | None = None
    kept: bool = False


def reproduce(
    targets: Sequence[Target],
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    runs: Sequence[Path] = (Path("runs"),),
    force: bool = False,
    processes: int | None = 1,
    cluster: Cluster | None = None,
    on_progress: Callable[[Target, float, str], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run `targets`; each writes NAME.png, NAME.svg and NAME.json into the folder `out`.

    A target that is complete there with the same seed (and, unless `quick`, at full size) is not
    run again, unless it `looks_for_runs` or `force` is true, which also discards its pieces.
    Trained runs are never repeated: to do so, remove their folder. A failed target is reported, and
    the others go on.

    With several `processes`, targets, and the pieces of those that have some, run in parallel, each
    in a process with a processor of its own; those marked `alone` follow one after another. `None`
    is the default of `organics.machine.side_by_side`. A `cluster` instead of processes runs all but
    those marked `alone`.

    Raises `ValueError` if `processes` is less than 1, or the `cluster` cannot be reached.
    """
    at_once = how_many(processes)
    if cluster is not None:
        cluster.check()
        out, runs = out.resolve(), [folder.resolve() for folder in runs]  # for workers elsewhere
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}

    def settle(result: Result) -> None:
        results[result.target.name] = result
        if on_result is not None:
            on_result(result)

    todo = []
    for target in targets:
        kept = None if force or target.looks_for_runs else finished(target, out, quick, seed)
        if kept is not None:
            settle(Result(target, kept, kept=True))
            continue
        job = Job(
            folder=out / _WORK / f"{target.name}{'-quick' if quick else ''}-seed{seed}",
            quick=quick,
            seed=seed,
            runs=tuple(runs),
            out=out,
            progress=_tell(target, on_progress),
        )
        if force:
            shutil.rmtree(job.folder, ignore_errors=True)
        todo.append((target, job))
    if at_once > 1 or cluster is not None:
        _make_at_once(todo, at_once, cluster, settle)
    for target, job in todo:
        if target.name not in results:
            settle(_attempt(target, job))
    return [results[target.name] for target in targets]


def finished(target: Target, out: Path, quick: bool, seed: int) -> dict[str, Any] | None:
    """The target's JSON file, if it is complete and has the same seed and size."""
    document = read(target, out)
    if document is None or not all((out / name).exists() for name in document["pictures"]):
        return None
    fits = document["seed"] == seed and (quick or not document["quick"])
    return document if fits else None


def read(target: Target, out: Path) -> dict[str, Any] | None:
    """The target's JSON file in `out`; None if there is none from this version."""
    try:
        document = json.loads((out / f"{target.name}.json").read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.keys() >= _KEYS else None


def verdict_of(outcome: Outcome, target: Target, quick: bool) -> Verdict:
    """The verdict; "undecided" if the claim fails for networks that have hardly been trained."""
    against = outcome.verdict in ("partly", "does not hold")
    return "undecided" if quick and target.trains and against else outcome.verdict


def verdict_in_words(document: dict[str, Any]) -> str:
    """The verdict of a result, with a note if its samples are smaller."""
    return document["verdict"] + (" (quick)" if document["quick"] else "")


def but_not(document: dict[str, Any]) -> str:
    """The failed checks of a result that holds at least partly; "" if there are none."""
    failed = [check["what"] for check in document["checks"] if check["holds"] is False]
    if not failed or document["verdict"] in ("does not hold", "undecided"):
        return ""
    return f"but not: {'; '.join(failed)}"


class _Note(NamedTuple):
    """A file in which the process that runs a target reports on it."""

    fraction: float
    what: str = ""
    over: bool = False
    error: str | None = None


def _make_at_once(
    todo: Sequence[tuple[Target, Job]],
    processes: int,
    cluster: Cluster | None,
    settle: Callable[[Result], None],
) -> None:
    """Run targets in other processes; those that share a network run in the same one.

    Those with pieces hand these out from here, to run beside the others. Left to the caller, who
    sees their progress: targets marked `alone`, and one without pieces if it is the only one.
    """
    waiting: dict[str, tuple[Target, Job]] = {}
    groups: dict[str, list[tuple[Target, Job]]] = {}
    in_pieces = []
    for target, job in todo:
        if not job.quick and target.in_pieces:
            in_pieces.append((target, job))
        elif job.quick or not target.alone:
            waiting[target.name] = target, job
            _note_file(job).unlink(missing_ok=True)
            silent = replace(job, progress=Job.progress)  # the progress function cannot be sent
            groups.setdefault(target.network or target.name, []).append((target, silent))
    if len(groups) < 2 and not in_pieces and cluster is None:
        return

    def look() -> None:
        for target, job in list(waiting.values()):
            if (note := _read_note(job)) is None:
                continue
            if note.over:
                del waiting[target.name]
                document = read(target, job.out) if note.error is None else None
                settle(Result(target, document, note.error))
            else:
                job.progress(note.fraction, note.what)

    longest_first = sorted(groups.values(), key=lambda group: -sum(t.minutes for t, _ in group))
    with workers(processes, cluster) as submit:
        running = {submit(_make, group): group for group in longest_first}
        for target, job in in_pieces:

            def progress(fraction: float, what: str = "", *, job: Job = job) -> None:
                look()
                job.progress(fraction, what)

            settle(_attempt(target, replace(job, submit=submit, progress=progress)))
        while running:
            look()
            done, _ = wait(running, GLANCE, FIRST_COMPLETED)
            for future in done:
                group, error = running.pop(future), future.exception()
                look()
                for target, _ in group if error else ():
                    if waiting.pop(target.name, None):
                        settle(Result(target, None, f"{type(error).__name__}: {error}"))


def _make(group: Sequence[tuple[Target, Job]]) -> None:
    for target, job in group:
        if (note := _read_note(job)) is not None and note.over:
            continue  # by a worker that has been killed

        def progress(fraction: float, what: str = "", *, job: Job = job) -> None:
            _leave_note(job, _Note(fraction, what))

        progress(0.0)
        result = _attempt(target, replace(job, progress=progress))
        _leave_note(job, _Note(1.0, over=True, error=result.error))


def _note_file(job: Job) -> Path:
    return job.folder.with_name(f"{job.folder.name}.note.json")


def _leave_note(job: Job, note: _Note) -> None:
    path = _note_file(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(note).encode())


def _read_note(job: Job) -> _Note | None:
    try:
        return _Note(*json.loads(_note_file(job).read_text()))
    except FileNotFoundError:
        return None


def _attempt(target: Target, job: Job) -> Result:
    try:
        return Result(target, _run(target, job))
    except Exception as error:  # whatever it is, the other targets go on
        log = job.out / _WORK / f"{target.name}.error.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(log, traceback.format_exc().encode())
        return Result(target, None, f"{type(error).__name__}: {error} (see {log})")


def _run(target: Target, job: Job) -> dict[str, Any]:
    module = import_module(f"organics.studies.{target.room}.{target.name}")
    earlier, begin = seconds_spent(job.folder), time.perf_counter()
    outcome: Outcome = module.compute(job)
    seconds = None if earlier is None else round(earlier + time.perf_counter() - begin, 1)
    figure = module.draw(outcome)
    pictures = [f"{target.name}.{kind}" for kind in ("png", "svg")]
    options = [*(["--quick"] if job.quick else []), *([f"--seed {job.seed}"] if job.seed else [])]
    document = {
        "name": target.name,
        "title": target.title,
        "claim": target.claim,
        "source": target.source,
        "paper": target.paper,
        "here": outcome.here,
        "verdict": verdict_of(outcome, target, job.quick),
        "checks": [check._asdict() for check in outcome.checks],
        "table": None if outcome.table is None else outcome.table._asdict(),
        "command": " ".join(["organics reproduce", target.name, *options]),
        "quick": job.quick,
        "seed": job.seed,
        "seconds": seconds,
        "versions": versions(),
        "machine": machine(),
        "pictures": pictures,
        "caption": " ".join((module.draw.__doc__ or "").split()),
        "numbers": outcome.numbers,
    }
    text = json.dumps(as_plain(document), indent=1, allow_nan=False) + "\n"
    for name in pictures:
        save_figure(figure, job.out / name)
    write_atomically(job.out / f"{target.name}.json", text.encode())  # last: the target is complete
    return json.loads(text)


def _tell(target: Target, on_progress: Callable[[Target, float, str], None] | None):
    def progress(fraction: float, what: str = "") -> None:
        if on_progress is not None:
            on_progress(target, fraction, what)

    return progress
