"""Devices and processes that train together: where JAX is told of them, before it does anything."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class Devices:
    """Who shares the work."""

    devices: int = 1
    """Devices of this process that share every batch. A CPU is made into so many."""
    coordinator: str | None = None
    """To train with several processes, on one host or many: HOST:PORT, where the first of them
    listens; each is started with the same command and its own `--process-id`. Or "auto": what
    Slurm, Open MPI and others that JAX knows say of the processes that they start."""
    processes: int | None = None
    """How many processes there are, with `--coordinator HOST:PORT`."""
    process_id: int | None = None
    """Which of them this is, from 0; the first, 0, alone writes files and answers."""

    def start(self) -> bool:
        """Tell JAX, and return whether this process is the first.

        Raises `ValueError`, naming the argument, if they do not fit together, or if the processes
        do not find each other.
        """
        self._check()
        import jax

        if self.devices > 1:
            with suppress(RuntimeError):  # JAX may be at work already, with the devices it has
                jax.config.update("jax_num_cpu_devices", self.devices)
        if self.coordinator is not None:
            address = None if self.coordinator == AUTO else self.coordinator
            try:
                jax.distributed.initialize(address, self.processes, self.process_id)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"`coordinator` {self.coordinator}: the processes did not meet: {error}"
                ) from None
        return jax.process_index() == 0

    def _check(self) -> None:
        if self.devices < 1:
            raise ValueError(f"`devices` must be >= 1, not {self.devices}.")
        given = self.coordinator not in (None, AUTO)
        for name, value in (("processes", self.processes), ("process_id", self.process_id)):
            if (value is not None) != given:
                raise ValueError(
                    f"`{name}` must{'' if given else ' only'} be given with a `coordinator` "
                    "HOST:PORT."
                )
        if self.coordinator is None or self.processes is None or self.process_id is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"`coordinator` must be HOST:PORT or auto, not {self.coordinator!r}.")
        if not 0 <= self.process_id < self.processes:
            raise ValueError(
                f"`process_id` must be from 0 to below `processes` ({self.processes}), "
                f"not {self.process_id}."
            )


@contextmanager
def only_answers_on_standard_output(several: bool) -> Iterator[None]:
    """With `several` processes, send to standard error what JAX's runtime has to say meanwhile."""
    if not several:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
