"""A Dask cluster for tests: processes of a scheduler and two workers, on the loopback address."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Workers(NamedTuple):
    """The address of the scheduler, and the workers' processes."""

    address: str
    pids: list[int]

    def kill(self, pid: int) -> None:
        """Kill a worker at once, without a goodbye."""
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    @contextmanager
    def one_killed(self, begun: Callable[[], bool]) -> Iterator[None]:
        """A block during which the first worker is killed, as soon as its work has `begun`."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.01):
                if begun():
                    self.kill(self.pids[0])
                    return

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def workers(folder: Path, count: int = 2, failures: int = 3) -> Iterator[Workers]:
    """Workers of one thread. A call that loses more than `failures` of them is given up."""
    from distributed import Client

    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures),
    }
    file = str(folder / "scheduler.json")
    processes = []

    def begin(program: str, *arguments: str) -> int:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", file,
                   "--no-dashboard", "--host", "127.0.0.1", *arguments]  # fmt: skip
        with (folder / f"{len(processes)}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=log,
                                              stderr=subprocess.STDOUT))  # fmt: skip
        return processes[-1].pid

    try:
        begin("dask_scheduler", "--port", "0")
        pids = [begin("dask_worker", "--no-nanny", "--nthreads", "1") for _ in range(count)]
        with Client(scheduler_file=file, timeout=60, set_as_default=False) as client:
            if count > 0:
                client.wait_for_workers(count, timeout=60)
            address = client.scheduler.address
        yield Workers(address, pids)
    finally:
        for process in processes:
            process.kill()
            process.wait()
