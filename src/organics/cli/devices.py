"""Devices and processes that train together; sets them up in JAX before any computation."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True)
class Devices:
    """Devices and processes that share the work."""

    devices: int = 1
    """Devices of this process that share every batch. A CPU is split into that many."""
    coordinator: str | None = None
    """For several processes, on one or many hosts: HOST:PORT on which the first one listens. Start
    each with the same command and its own `--process-id`. "auto" takes all this from Slurm, Open
    MPI or another launcher that JAX knows."""
    processes: int | None = None
    """Number of processes, with `--coordinator HOST:PORT`."""
    process_id: int | None = None
    """Number of this process, from 0; only process 0 writes files and answers."""

    def start(self) -> bool:
        """Set up JAX, and return whether this process is the first.

        Raises `ValueError`, naming the argument, if the options do not fit together, or the
        processes do not find each other.
        """
        self._check()
        import jax

        if self.devices > 1:
            with suppress(RuntimeError):  # JAX may be initialized already
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
    """With `several` processes, redirect messages of JAX's runtime to standard error."""
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
