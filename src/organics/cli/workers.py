"""Where a command runs its many parts."""

from dataclasses import dataclass

from organics.machine.cluster import PROCESSES, Cluster, chosen
from organics.names import SweepBackend


@dataclass(frozen=True)
class Workers:
    """Processes or cluster that do the work."""

    processes: int | None = None
    """Number of processes on this machine, each on one processor."""
    backend: SweepBackend = PROCESSES
    """Processes of this machine, or the workers of a running Dask or Ray cluster that share its
    files and have organics installed."""
    scheduler: str | None = None
    """Address of the cluster, such as tcp://HOST:PORT for Dask; by default DASK_SCHEDULER_ADDRESS
    or RAY_ADDRESS."""

    def cluster(self) -> Cluster | None:
        """The cluster; None for processes of this machine. Raises `ValueError` if the flags do not
        fit together."""
        return chosen(self.backend, self.scheduler, self.processes)
