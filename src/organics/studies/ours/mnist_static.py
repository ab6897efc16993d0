"""The static classifiers on MNIST: accuracy over seeds, and stability at every test input.

    python -m organics.studies.ours.mnist_static

Trains the networks of the paper's Table 1 and writes the results. It can be interrupted and
repeated: complete runs are kept, and an interrupted run continues from its last epoch.

Source: Rawat et al. 2024, Table 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from organics.machine.cluster import PROCESSES, chosen
from organics.names import SweepBackend
from organics.studies.harness.outcome import command, run_from_command_line, write
from organics.studies.networks.static import Networks, train_all


@dataclass(frozen=True)
class Config(Networks):
    """Train the static classifiers of the paper's Table 1, with several seeds each."""

    results: Path = Path("results/mnist_static.json")
    """File for the outcome."""
    processes: int | None = None
    """Number of networks trained in parallel, each on one processor; by default one per processor,
    on a GPU one."""
    backend: SweepBackend = PROCESSES
    """Where they train: processes of this machine, or an existing Dask or Ray cluster."""
    scheduler: str | None = None
    """Address of the cluster."""


def compute(config: Config, tell: Callable[[float, str], None] | None = None) -> dict[str, Any]:
    """Train and evaluate runs that are not complete; the outcome is also in `config.results`.

    `tell` is called now and then with the fraction done and a word on the networks done.

    Raises `ValueError` if the cluster cannot be reached.
    """
    cluster = chosen(config.backend, config.scheduler, config.processes)
    found = {
        "command": command("mnist_static"),
        **train_all(config, tell, config.processes, cluster),
    }
    write(config.results, found)
    return found


def _with_bar(config: Config) -> dict[str, Any]:
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)

        def tell(done: float, what: str) -> None:
            bar.update(task, completed=done, description=what)

        found = compute(config, tell)
        tell(1.0, "done")
    return found


if __name__ == "__main__":
    run_from_command_line(_with_bar, Config)
