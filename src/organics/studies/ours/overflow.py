"""Where gradients of training overflow, for random initial layers, step sizes and inputs.

With `drive="unit"` no input is too large. What is left is the circuit itself, whose explicit steps
are those of the equations only if they are small. Each layer has its own weights, sizes of weights,
largest rates, and inputs; float32.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from organics.nn.recurrent import ORGaNICs, trainable
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.trials import fraction_interval


@dataclass(frozen=True)
class Sample:
    """The layers."""

    count: int = 10_000
    """Layers of each kind."""
    units: int = 16
    """Neurons."""
    inputs: int = 2
    """Numbers a step."""
    steps: int = 200
    """Steps."""
    at_once: int = 500
    """Layers in one program."""
    seed: int = 0
    """Of all of them."""


TIME_CONSTANTS = {
    "learned": "learned time constants",
    "modulated-y": "time constants of y that move, by weights drawn normal",
    "modulated-together": "time constants of whole neurons that move, by weights drawn normal",
    "modulated": "time constants that all move, by weights drawn normal",
}
KINDS = tuple(
    (recurrent, rectified, time_constants)
    for recurrent in ("identity", "semidefinite")
    for rectified in (True, False)
    for time_constants in TIME_CONSTANTS
)
"""`recurrent`, `rectified` and `time_constants` of the layers."""

SPREADS = {"as drawn": 1.0, "weights times 1/10 to 10": 10.0}
"""Factors of all weights but those of normalization: log-uniform up to it and its inverse."""


def compute(job: Job) -> Outcome:
    """Count."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, count=20, steps=20, at_once=20)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The counts, a piece for each kind and spread of the weights."""
    cases = [(kind, spread) for kind in KINDS for spread in SPREADS]
    rows = []
    for i, (kind, spread) in enumerate(cases):
        job.progress(i / len(cases), f"{_name(kind)}, {spread}")
        words = (*kind, SPREADS[spread], sample.count, sample.units, sample.steps, sample.seed)
        make = partial(_count, sample, kind, spread)
        rows.append(kept_document(job.folder / f"{'-'.join(map(str, words))}.json", make))
    return {"count": sample.count, "steps": sample.steps, "rows": rows}


def _count(sample: Sample, kind: tuple[Any, bool, Any], spread: str) -> dict[str, Any]:
    keys = jr.split(jr.key(sample.seed), sample.count)
    some = range(0, sample.count, sample.at_once)
    run = partial(_gradients, kind, sample, jnp.float32(SPREADS[spread]))
    norms, largest = (
        np.concatenate(parts)
        for parts in zip(*(run(keys[i : i + sample.at_once]) for i in some), strict=True)
    )
    finite = np.isfinite(norms)
    states = np.isfinite(largest)
    return {
        "recurrent": kind[0],
        "rectified": kind[1],
        "time_constants": kind[2],
        "weights": spread,
        "layers": len(norms),
        "overflow": int(np.sum(~finite)),
        "states_overflow": int(np.sum(~states)),
        "gradient_norm": {
            "median": _number(np.median(norms[finite])),
            "0.999": _number(np.quantile(norms[finite], 0.999)),
            "largest": _number(norms[finite].max()),
        },
        "largest_y": _number(largest[states].max()),
    }


def _number(value: Any) -> float:
    return float(f"{value:.4g}")


@eqx.filter_jit
def _gradients(
    kind: tuple[Any, bool, Any], sample: Sample, factor: Float[Array, ""], keys: Array
) -> tuple[Array, Array]:
    """The norm of the gradient of the mean of y^2 over steps, and the largest |y|, of each layer.

    The norm is taken relative to its largest entry, so that it overflows only if that does.
    """
    recurrent, rectified, time_constants = kind

    def one(key):
        k_layer, k_factor, k_rates, k_modulation, k_x, k_size = jr.split(key, 6)
        layer = ORGaNICs(
            sample.inputs, sample.units, key=k_layer, recurrent=recurrent, rectified=rectified,
            time_constants=time_constants, drive="unit", dtype=np.float32,
            dt_tau_max_y=1.0, dt_tau_max_a=1.0, dt_tau_max_gates=1.0,
        )  # fmt: skip
        cell = layer.cells[0]
        # rates from about 0.001 to 0.999, an own centre for each of y, a, b0 and b
        centre = jr.uniform(k_rates, (4, 1), np.float32, -6, 6)
        cell = eqx.tree_at(lambda c: c.raw_rates, cell, replace_fn=lambda raw: centre + raw)
        if cell.modulation is not None:
            leaves, tree = jax.tree.flatten(cell.modulation)
            new = [
                jr.normal(k, leaf.shape, leaf.dtype)
                for k, leaf in zip(jr.split(k_modulation, len(leaves)), leaves, strict=True)
            ]
            cell = eqx.tree_at(lambda c: c.modulation, cell, jax.tree.unflatten(tree, new))
        times = factor ** jr.uniform(k_factor, (), np.float32, -1, 1)
        scaled = lambda c: (c.W_zx, c.W_b0x, c.W_bx, c.W_b0y, c.W_b0a, c.W_by, c.W_ba)  # noqa: E731
        cell = eqx.tree_at(scaled, cell, replace_fn=lambda W: times * W)
        if cell.modulation is not None:
            cell = eqx.tree_at(
                lambda c: c.modulation, cell, jax.tree.map(lambda T: times * T, cell.modulation)
            )
        if cell.W_r is not None:
            cell = eqx.tree_at(lambda c: c.W_r, cell, times * cell.W_r)
        layer = eqx.tree_at(lambda la: la.cells, layer, (cell,))
        size = 10 ** jr.uniform(k_size, (), np.float32, -1, 3)
        x = size * jr.normal(k_x, (sample.steps, sample.inputs), np.float32)

        def loss(moving, rest):
            y, _ = eqx.combine(moving, rest)(x)
            return jnp.mean(jnp.square(y)), jnp.max(jnp.abs(y))

        parts = eqx.partition(layer, trainable(layer))
        gradient, largest = jax.grad(loss, has_aux=True)(*parts)
        entries = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(gradient)])
        top = jnp.max(jnp.abs(entries))
        safe = jnp.where(top > 0, top, 1)
        return top * jnp.linalg.norm(entries / safe), largest

    return jax.vmap(one)(keys)


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    rows = found["rows"]
    checks = []
    for kind, words in TIME_CONSTANTS.items():
        some = [row for row in rows if row["time_constants"] == kind]
        lost, layers = (sum(row[name] for row in some) for name in ("overflow", "layers"))
        upper = fraction_interval(lost, layers)[1]
        worst = max(row["gradient_norm"]["largest"] for row in some)
        checks.append(
            Check(
                f"no gradient overflows with {words}",
                f"{lost:,} of {layers:,} do (at most {100 * upper:.2g} %, 95 %); the largest "
                f"finite norm is {worst:.3g}",
                lost == 0,
                tolerance="not one",
            )
        )
    here = "; ".join(
        f"with {TIME_CONSTANTS[kind].partition(',')[0]} {lost:,} of {layers:,} gradients overflow, "
        f"{lost - states:,} of them where the states do not"
        for kind, lost, states, layers in _totals(rows)
    )
    heads = ("layer", "weights", "overflow", "largest |y|", "gradient norm: median", "0.999",
             "largest")  # fmt: skip
    table = [
        [
            _name((row["recurrent"], row["rectified"], row["time_constants"])),
            row["weights"],
            f"{row['overflow']:,}",
            f"{row['largest_y']:.3g}",
            *(f"{row['gradient_norm'][name]:.3g}" for name in ("median", "0.999", "largest")),
        ]
        for row in rows
    ]
    return Outcome(here, checks, found, Table(heads, table))


def _totals(rows: list[dict[str, Any]]) -> list[tuple[str, int, int, int]]:
    """Of each kind of time constants the overflows of gradients, of states, and the layers."""
    found = []
    for kind in TIME_CONSTANTS:
        some = [row for row in rows if row["time_constants"] == kind]
        names = ("overflow", "states_overflow", "layers")
        found.append((kind, *(sum(row[name] for row in some) for name in names)))
    return found


def _name(kind: tuple[Any, bool, Any]) -> str:
    recurrent, rectified, time_constants = kind
    return f"{recurrent}, {'rectified' if rectified else 'main'}, {time_constants}"
