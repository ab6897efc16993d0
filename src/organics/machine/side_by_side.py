"""Runs independent calls in parallel, each in a process with a processor of its own.

A second thread hardly helps networks as small as the paper's, so each network gets a process with
one processor, or a worker of a cluster.

Joblib distributes the calls to futures. Its own backends do not suffice: its processes outlive a
main process that is killed, and its Dask backend waits for ever for a call that killed its workers.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import ParallelBackendBase

from organics.machine.cluster import Cluster, Submit
from organics.machine.processors import available

MOST = 8
"""Most processes at once: each holds JAX and its compiled programs in memory."""

GLANCE = 1.0
"""Seconds between two looks at what runs elsewhere."""

# "spawn", as JAX's threads do not survive a fork
_CONTEXT = multiprocessing.get_context("spawn")


def how_many(processes: int | None) -> int:
    """`processes`, or if that is None the default of `side_by_side`.

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
    """The results of `function(*arguments)` for each of `calls`.

    Calls begin in the given order, so put the longest first. A cluster repeats a call whose worker
    was killed; any files that it writes must not depend on what was left before.

    Arguments
        function: a function of a module, so that other processes can import it.
        calls: the arguments of each call, sent to the other processes; use absolute paths for a
            cluster.
        processes: how many at once; by default one for each processor, at most `MOST`, or on a GPU
            one. If it is one, calls run in this process. Not used with a cluster.
        cluster: runs the calls; by default processes of this machine do.
        watch: called about every second, or before every call if there is only one process; it may
            read and report progress.

    Raises `ValueError` if `processes` is less than 1 or the `cluster` cannot be reached. If a call
    fails or this process is interrupted, its exception is raised, running calls are stopped, and no
    more begin.
    """
    count = min(how_many(processes), len(calls))
    if cluster is None and count <= 1:
        return call_each(function, calls, watch=watch)
    with workers(count, cluster) as submit:
        return call_each(function, calls, submit, watch=watch)


@contextmanager
def workers(processes: int, cluster: Cluster | None = None) -> Iterator[Submit]:
    """New processes of this machine, or the workers of a cluster, for a `with` block.

    Its calls begin in the order in which they are submitted. If an exception leaves the block,
    running calls are stopped, and no more begin. If a process dies, so do all calls submitted by
    then; later ones get new processes.

    Raises `ValueError` if the cluster cannot be reached.
    """
    if cluster is not None:
        with cluster.connected() as submit:
            yield submit
        return
    with ExitStack() as pools:

        def begin() -> ProcessPoolExecutor:
            processors = _CONTEXT.Queue()
            for processor in islice(cycle(available()), processes):
                processors.put(processor)
            return pools.enter_context(_processes(processes, _on_one_processor, processors))

        pool = begin()

        def submit_here(function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
            nonlocal pool
            try:
                return pool.submit(function, *arguments)
            except BrokenProcessPool:
                pool = begin()
                return pool.submit(function, *arguments)

        yield submit_here


def call_each(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    submit: Submit | None = None,
    *,
    watch: Callable[[], None] | None = None,
) -> list[Any]:
    """`side_by_side` with `workers`, by their `submit`; without, one after another in this process.

    If a call fails, those that have not begun are cancelled, and its exception is raised.
    """
    watch = watch or _nothing
    if submit is not None:
        futures = _Futures(submit, watch)
        # each worker takes the next as soon as it is free
        parallel = Parallel(backend=futures, pre_dispatch="all")
        try:
            return list(parallel(delayed(function)(*arguments) for arguments in calls))
        except BaseException:
            futures.cancel()
            raise
    results = []
    for arguments in calls:
        watch()
        results.append(function(*arguments))
    return results


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `function(*arguments)`, called in a new process with all processors.

    `function` must belong to a module, so that the other process can import it.

    Raises what the function raises, and `BrokenProcessPool` if its process dies. The new process is
    stopped if this one is interrupted, and ends with it.
    """
    with _processes(1, _with_the_first) as pool:
        return pool.submit(function, *arguments).result()


class _Futures(ParallelBackendBase):
    """Passes Joblib's calls on; while it waits for one, it watches all of them."""

    def __init__(self, submit: Submit, watch: Callable[[], None]):
        super().__init__(nesting_level=0)
        self._submit, self._watch = submit, watch
        self._running: set[Future[Any]] = set()

    def effective_n_jobs(self, n_jobs: int) -> Any:
        del n_jobs
        return 2  # with one, Joblib would run the calls itself

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
            done, self._running = wait(self._running, GLANCE, FIRST_EXCEPTION)
            for future in done:
                future.result()
        return out.result()

    def cancel(self) -> None:
        """Cancel the calls that have not begun."""
        for future in self._running:
            future.cancel()


@contextmanager
def _processes(
    count: int, begin: Callable[..., None], *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """New processes, each initialized by `begin(*arguments)`; a failure or an interruption stops
    them."""
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
    """Default `watch`: does nothing."""


def _on_one_processor(processors: Any) -> None:
    """Initializes a process: all its threads run on a processor taken from the queue."""
    _with_the_first()
    processor = processors.get()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {processor})


def _with_the_first() -> None:
    """Initializes a process that ends with the main one and ignores interruptions, which the main
    one handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()


def _end_with_the_first() -> None:
    """End with the main process, however that ends: when killed it cannot stop the others."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        os._exit(1)
