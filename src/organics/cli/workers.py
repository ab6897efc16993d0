"""Who makes what a command makes many of."""

from dataclasses import dataclass

from organics.machine.cluster import PROCESSES, Cluster, chosen
from organics.names import SweepBackend


@dataclass(frozen=True)
class Workers:
    """Who does the work."""

    processes: int | None = None
    """How many of this machine, each on one processor."""
    backend: SweepBackend = PROCESSES
    """Processes of this machine, or the workers of a cluster of Dask or Ray that exists already,
    see the same files, and have organics installed."""
    scheduler: str | None = None
    """Address of the cluster, as tcp://HOST:PORT for Dask; by default that of
    DASK_SCHEDULER_ADDRESS, or of RAY_ADDRESS."""

    def cluster(self) -> Cluster | None:
        """None for processes of this machine. Raises `ValueError` if the flags do not fit."""
        return chosen(self.backend, self.scheduler, self.processes)
