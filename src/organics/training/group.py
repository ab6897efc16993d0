"""The devices, of one process or of several, that train one model together."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, PyTree

AXIS = "devices"
_Tree = TypeVar("_Tree")


def batch_spec(size: int, mesh: Mesh | None, axis: int = 0) -> PartitionSpec:
    """How a batch of `size`, along `axis` of an array, is distributed over the devices of `mesh`.

    In equal shares, or, if that is impossible, whole on every device.
    """
    shared = mesh is not None and size % mesh.size == 0
    return PartitionSpec(*[None] * axis, AXIS) if shared else PartitionSpec()


class Group:
    """Devices that each hold the whole model and all examples, and share every batch.

    Arguments
        devices: number of devices used in this process, and in every other process of
            `jax.distributed`.

    Attributes
        mesh: the devices; None if there is only one.
        size: their number.
        first: whether this process reads and writes the files.

    Raises `ValueError` if this process has fewer devices.
    """

    def __init__(self, devices: int = 1):
        here = jax.local_device_count()
        if not 1 <= devices <= here:
            raise ValueError(
                f"`devices` must be from 1 to {here}, as many as JAX has here, not {devices}."
            )
        chosen = [
            device
            for process in range(jax.process_count())
            for device in [d for d in jax.devices() if d.process_index == process][:devices]
        ]
        self.size = len(chosen)
        self.mesh = Mesh(np.array(chosen), (AXIS,)) if self.size > 1 else None
        self.first = jax.process_index() == 0

    def replicate(self, tree: PyTree) -> Any:
        """The tree, equal in all processes, with its arrays on every device."""
        return self._place(tree, lambda _: PartitionSpec())

    def share(self, order: Int[np.ndarray, "*steps batch"]) -> Int[Array, "*steps batch"]:
        """The array on the devices, each batch distributed as `batch_spec` says."""
        axis = order.ndim - 1
        return self._place(order, lambda mesh: batch_spec(order.shape[axis], mesh, axis))

    def local(self, tree: _Tree) -> _Tree:
        """The tree with arrays local to this process, for work that it does alone."""
        if self.mesh is None:
            return tree
        return _map(lambda leaf: leaf.addressable_data(0), tree)

    def agree(self, function: Callable[[], Any]) -> Any:
        """The result of `function` in the first process, returned in all; it must be a JSON value.

        Only the first process calls it. If it raises, the others raise `ValueError` with the same
        message.
        """
        if jax.process_count() == 1:
            return function()
        if not self.first:
            outcome = json.loads(_from_first(b""))
            if "error" in outcome:
                raise ValueError(f"the first process stopped: {outcome['error']}")
            return outcome["value"]
        try:
            outcome = {"value": function()}
        except Exception as error:
            _from_first(json.dumps({"error": str(error)}).encode())
            raise
        return json.loads(_from_first(json.dumps(outcome).encode()))["value"]

    def of_first(self, tree: _Tree) -> _Tree:
        """The tree with the arrays of the first process; those of the others are ignored."""
        if jax.process_count() == 1:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        # as bytes: the transfer adds numbers, which would turn negative zeros into zeros
        raw = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1).view(np.uint8), arrays)
        raw = multihost_utils.broadcast_one_to_all(raw)
        arrays = jax.tree.map(
            lambda leaf, data: jnp.asarray(data.view(leaf.dtype).reshape(leaf.shape), leaf.dtype),
            arrays,
            raw,
        )
        return eqx.combine(arrays, rest)

    def _place(self, tree: PyTree, spec: Callable[[Mesh], PartitionSpec]) -> Any:
        if self.mesh is None:
            return _map(lambda leaf: jnp.asarray(leaf, leaf.dtype), tree)
        sharding = NamedSharding(self.mesh, spec(self.mesh))

        def place(leaf):
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return _map(place, tree)


def _map(function: Callable[[Any], Any], tree: PyTree) -> Any:
    return jax.tree.map(lambda leaf: function(leaf) if eqx.is_array(leaf) else leaf, tree)


def _from_first(data: bytes) -> bytes:
    """The first process's bytes, in all of them."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    buffer = np.zeros(length, np.uint8)
    if jax.process_index() == 0:
        buffer[:] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(buffer).tobytes()
