"""Calls that do not need each other, side by side: each in a process with a processor of its own.

Networks as small as the paper's are hardly quicker with a second thread: an epoch of two layers of
circuits that learn `W_r` takes 6.5 s on two cores and 7.5 s on one, at first. Twice as many
processors serve twice as many of them only in processes of their own, or on a cluster.

Joblib hands the calls out, to futures. Its own backends do not do: its processes outlive a first
one that is killed, and that of Dask waits for ever for a call that has killed its workers.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import ParallelBackendBase

from organics.machine.cluster import Cluster, Submit
from organics.machine.processors import available

MOST = 8
"""Processes at once: each has JAX, and what it compiles, in memory for itself."""

_GLANCE = 1.0  # s, between two calls of `watch`

# a process is started anew, as one that is forked shares threads that it does not have
_CONTEXT = multiprocessing.get_context("spawn")


def how_many(processes: int | None) -> int:
    """So many, or if that is None the default of `side_by_side`.

    Raises `ValueError` if `processes` is less than 1.
    """
    if processes is None:
        import jax

        return min(len(available()), MOST) if jax.default_backend() == "cpu" else 1
    if processes < 1:
        raise ValueError(f"`processes` must be at least 1, not {processes}.")
    return processes


def side_by_side(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    *,
    processes: int | None = None,
    cluster: Cluster | None = None,
    watch: Callable[[], None] | None = None,
) -> list[Any]:
    """What `function(*arguments)` returns for each of `calls`, unless it leaves that in files.

    Calls begin in the order given, which is best that of their length, the longest first. A
    cluster makes a call again whose worker was killed: it has to lead to the same files whatever
    was left there before.

    Arguments
        function: of a module, as the other processes have to find it there.
        calls: its arguments, which are sent to them; paths are absolute for a cluster.
        processes: how many at once; by default as many as there are processors, at most `MOST`, or
            on a GPU one. If it is one, it is this one. A cluster has its own.
        cluster: that makes the calls; by default it is processes of this machine.
        watch: called about every second, or before every call if there is but one process: where
            progress can be looked for in the files and told.

    Raises `ValueError` if `processes` is less than 1, or if no `cluster` is there, see
    `organics.machine.cluster`, and what the first call to fail raises; those that have not begun
    never do, and the others are stopped, as they are when this one is interrupted.
    """
    watch = watch or _nothing
    if cluster is not None:
        with cluster.connected() as submit:
            return _hand_out(function, calls, submit, watch)
    count = min(how_many(processes), len(calls))
    if count <= 1:
        results = []
        for arguments in calls:
            watch()
            results.append(function(*arguments))
        return results
    processors = _CONTEXT.Queue()
    for processor in islice(cycle(available()), count):
        processors.put(processor)
    with _processes(count, _on_one_processor, processors) as pool:
        return _hand_out(function, calls, pool.submit, watch)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function(*arguments)` returns, called in a new process with all processors.

    `function` is of a module, as the other process has to find it there.

    Raises what it raises, and `BrokenProcessPool` if its process ends before it does. That is
    stopped when this one is interrupted, and ends when this one does.
    """
    with _processes(1, _with_the_first) as pool:
        return pool.submit(function, *arguments).result()


def _hand_out(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    submit: Submit,
    watch: Callable[[], None],
) -> list[Any]:
    """All calls at once: who makes them takes the next as soon as it can."""
    parallel = Parallel(backend=_Futures(submit, watch), pre_dispatch="all")
    return list(parallel(delayed(function)(*arguments) for arguments in calls))


class _Futures(ParallelBackendBase):
    """Has Joblib's calls made elsewhere; while it waits for one, it watches all of them."""

    def __init__(self, submit: Submit, watch: Callable[[], None]):
        super().__init__(nesting_level=0)
        self._submit, self._watch = submit, watch
        self._running: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int) -> Any:
        del n_jobs
        return 2  # of one, Joblib would make the calls itself

    def submit(self, func: Callable[[], Any], callback: Callable[..., None] | None = None) -> Any:
        future = self._submit(func)
        self._running.add(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result(self, out: Future[Any], timeout: float | None = None) -> Any:
        del timeout  # none is set
        while out in self._running:
            self._watch()
            done, self._running = wait(self._running, _GLANCE, FIRST_EXCEPTION)
            for future in done:
                future.result()
        return out.result()


@contextmanager
def _processes(
    count: int, begin: Callable[..., None], *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """New processes, each begun by `begin(*arguments)`; a failure or an interruption stops them."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, _CONTEXT, begin, arguments)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    pool.shutdown()


def _nothing() -> None:
    """Nobody watches."""


def _on_one_processor(processors: Any) -> None:
    """Begins a process: all its threads stay on the processor that it takes from the queue."""
    _with_the_first()
    processor = processors.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {processor})


def _with_the_first() -> None:
    """Begins a process that ends with the first, which alone is interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """However that ends: one that is killed cannot stop the others."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        os._exit(1)
