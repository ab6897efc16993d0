"""Runs calls on an existing Dask or Ray cluster.

Its workers must have this package installed and see the files of this machine under the same paths.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

PROCESSES = "processes"  # the value of `organics.names.SweepBackend` that is not a cluster

_PATIENCE = 10  # s to wait for a scheduler's answer

_one_at_a_time = threading.Lock()


Submit = Callable[..., Future[Any]]
"""Called as `submit(function, *arguments)`: submits the call and returns a future."""


@dataclass(frozen=True)
class Cluster:
    """The address of a cluster.

    Attributes
        backend: "dask" or "ray".
        scheduler: its address; by default the cluster that this process is connected to, else the
            one in `DASK_SCHEDULER_ADDRESS` or `RAY_ADDRESS`, or the Ray cluster on this machine.
    """

    backend: str
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in _CONNECTED:
            raise ValueError(f"`backend` must be {_names(_CONNECTED)}, not {self.backend!r}.")

    def connected(self) -> AbstractContextManager[Submit]:
        """Connect to the cluster for a `with` block.

        A worker runs one call at a time, however many threads it has. If a worker dies, another
        repeats its call, three times at most. If an exception leaves the block, unfinished calls
        are cancelled; Dask cannot stop a call that has begun.

        Raises `ValueError` if the package is not installed, no cluster answers at the address, or a
        Dask cluster has no worker.
        """
        return _CONNECTED[self.backend](self.scheduler)

    def check(self) -> None:
        """Raises `ValueError`, as `connected` does, if there is no such cluster."""
        with self.connected():
            pass


def chosen(backend: str, scheduler: str | None, processes: int | None) -> Cluster | None:
    """The cluster chosen by the options of a command; None for processes of this machine.

    Raises `ValueError`, naming the option, if they do not fit together.
    """
    if backend == PROCESSES:
        if scheduler is not None:
            raise ValueError(
                f"`scheduler` must only be given with the `backend` {_names(_CONNECTED)}, "
                f"not with {PROCESSES!r}."
            )
        return None
    if processes is not None:
        raise ValueError(
            f"`processes` must only be given with the `backend` {PROCESSES!r}: "
            f"the cluster of {backend!r} has as many as it has."
        )
    return Cluster(backend, scheduler)


@contextmanager
def _dask(scheduler: str | None) -> Iterator[Submit]:
    distributed = _package("distributed", "dask", "pip install 'organics[cluster]'")
    address = scheduler or import_module("dask").config.get("scheduler-address", None)
    client, own = _dask_client(distributed, address)
    try:
        if not client.ncores():
            raise ValueError(f"`scheduler` {client.scheduler.address}: it has no worker.")
        executor = client.get_executor(pure=False)
        try:
            yield partial(executor.submit, _make)
        except BaseException:
            executor.shutdown(wait=False)  # cancels
            raise
    finally:
        if own:
            client.close()


def _dask_client(distributed: Any, address: str | None) -> tuple[Any, bool]:
    """A client, and whether it is new."""
    if address is None:
        try:
            return distributed.get_client(), False
        except ValueError:
            raise ValueError(
                "`scheduler` must be given, or `DASK_SCHEDULER_ADDRESS` set: this process is "
                "connected to no Dask cluster."
            ) from None
    _reach(address)
    try:
        return distributed.Client(address, timeout=_PATIENCE, set_as_default=False), True
    except (OSError, ValueError) as error:
        raise _silent(address, "Dask", error) from None


@contextmanager
def _ray(scheduler: str | None) -> Iterator[Submit]:
    ray = _package("ray", "ray", "pip install ray")
    own = not ray.is_initialized()
    if own:
        if scheduler is not None:
            _reach(scheduler)
        try:
            ray.init(address=scheduler or "auto", log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise _silent(scheduler or "auto", "Ray", error) from None
    make = ray.remote(_make).options(max_retries=3)
    handed = []

    def submit(function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        handed.append(make.remote(function, *arguments))
        return handed[-1].future()

    try:
        yield submit
    except BaseException:
        for one in handed:
            ray.cancel(one, force=True)
        raise
    finally:
        if own:
            ray.shutdown()


_CONNECTED: dict[str, Callable[[str | None], AbstractContextManager[Submit]]] = {
    "dask": _dask,
    "ray": _ray,
}


def _make(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a call in a worker, one at a time: threads would share Matplotlib's style and LAPACK's
    settings."""
    with _one_at_a_time:
        return function(*arguments)


def _reach(address: str) -> None:
    """Raises `ValueError` unless something listens at the address; the libraries take long to find
    out."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"`scheduler` must be HOST:PORT or tcp://HOST:PORT, not {address!r}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"`scheduler` {address}: nobody listens there: {error}") from None


def _package(name: str, backend: str, command: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ValueError(f"`backend` {backend!r} needs the package {name}: {command}") from None


def _silent(address: str, library: str, error: Exception) -> ValueError:
    return ValueError(f"`scheduler` {address}: no {library} cluster answers there: {error}")


def _names(backends: Any) -> str:
    return " or ".join(map(repr, backends))
