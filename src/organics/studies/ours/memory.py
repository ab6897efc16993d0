"""What holds a value in a circuit: y that slows down, gains that close, or several stable states.

Single neurons are set by hand to hold by each of the three. Networks learn to say, after a delay in
which the input is noise, the number that they were told. Then each mechanism is switched off.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from matplotlib.figure import Figure

from organics.names import Mechanism
from organics.nn.recurrent import CellState, ORGaNICs
from organics.nn.retention import MECHANISMS, Holding, holding
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.training.fitted import Fitted, fit

_FULL = 40.0
"""The sigmoid of it is 1."""


def neuron(
    *,
    w_r: float = 1.0,
    dt_y: float = 0.02,
    dt_a: float = 1.0,
    sigma: float = 1.0,
    gain: float = 1.0,
    freeze: float = 0.0,
    close: float = 0.0,
    shut: float = 0.0,
) -> ORGaNICs:
    """One neuron set by hand, with W = 1, whose two inputs are a value and a flag for holding.

    While the flag is 1, the odds of its rate of y, of the gate of `b0` and of that of `b` are
    `exp(freeze)`, `exp(close)` and `exp(shut)`; while it is 0, its rate is `dt_y`, and both gains
    go to 1/2. It begins at y = 0 and a = 1/4.
    """
    layer = ORGaNICs(
        2, 1, key=jr.key(0), rectified=False, time_constants="modulated-y", backend="scan",
        sigma=sigma, dt_tau_max_y=dt_y, dt_tau_max_a=dt_a, dt_tau_max_gates=1.0,
    )  # fmt: skip
    dtype = layer.cells[0].log_W.dtype
    cell = jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), layer.cells[0])
    start = CellState(*(jnp.full(1, value, dtype) for value in (0.0, 0.25, 0.5, 0.5)))
    cell = eqx.tree_at(
        lambda c: (c.W_zx, c.W_r, c.raw_rates, c.modulation.T_x, c.W_b0x, c.W_bx, c.start),
        cell,
        (
            np.array([[gain, 0.0]], dtype),
            np.array([[w_r]], dtype),
            np.full((4, 1), _FULL, dtype),
            np.array([[[0.0, freeze - _FULL if freeze else 0.0]]], dtype),
            np.array([[0.0, close]], dtype),
            np.array([[0.0, shut]], dtype),
            start,
        ),
    )
    return jax.device_put(eqx.tree_at(lambda la: la.cells, layer, (cell,)))


def bit() -> ORGaNICs:
    """A neuron with two stable states: tau_y = 100, tau_a = 1 and w_r = 2, in steps of 1/4."""
    return neuron(w_r=2.0, sigma=0.2, dt_y=0.0025, dt_a=0.25, gain=2.0)


BY_HAND: dict[str, tuple[frozenset[Mechanism], dict[str, float]]] = {
    "neither": (frozenset(), {}),
    "dt_y closes": (frozenset({"freeze"}), {"freeze": -8.0}),
    "b0 closes": (frozenset({"integrate"}), {"close": -8.0}),
    "w_r = 2": (frozenset({"attract"}), {}),
}
"""The neurons, and what must hold a value in each."""


@dataclass(frozen=True)
class Networks:
    """The networks and what they learn."""

    kinds: tuple[tuple[str, str], ...] = (
        ("identity", "learned"),
        ("identity", "modulated-y"),
        ("identity", "modulated"),
        ("free", "learned"),
        ("free", "modulated"),
    )
    """`recurrent` and `time_constants` of each."""
    units: int = 16
    """Neurons."""
    cue: int = 5
    """Steps with the number."""
    delay: int = 100
    """Steps of noise after it."""
    noise: float = 0.1
    """Its standard deviation."""
    examples: int = 4096
    """Examples."""
    epochs: int = 40
    """Passes over them."""
    longer: int = 1000
    """Steps of the delay for the measurement."""
    seed: int = 0
    """Of the networks and the examples."""


def compute(job: Job) -> Outcome:
    """Train missing networks and look into them; runs are kept in the folder of the pieces."""
    networks = Networks(seed=job.seed)
    if job.quick:
        networks = replace(
            networks, kinds=(("identity", "modulated-y"),), units=4, delay=20, examples=400,
            epochs=1, longer=100,
        )  # fmt: skip
    return conclude(measure(networks, job))


def measure(networks: Networks, job: Job) -> dict[str, Any]:
    """How long each neuron and network holds, and by what."""
    job.progress(0.0, "neurons set by hand")
    with jax.enable_x64(True):
        by_hand = [_by_hand(name) for name in BY_HAND]
    trained = []
    for i, (recurrent, time_constants) in enumerate(networks.kinds):
        job.progress((1 + i) / (1 + len(networks.kinds)), f"{recurrent}, {time_constants}")
        words = (recurrent, time_constants, networks.units, networks.delay, networks.epochs)
        name = "-".join(map(str, (*words, networks.examples, networks.seed)))
        make = partial(_trained, networks, recurrent, time_constants, job.folder / name)
        trained.append(kept_document(job.folder / f"{name}.json", make))
    return {
        "delay": networks.delay,
        "longer": networks.longer,
        "by_hand": by_hand,
        "trained": trained,
    }


def _by_hand(name: str) -> dict[str, Any]:
    attracts = name == "w_r = 2"
    layer = bit() if attracts else neuron(**BY_HAND[name][1])
    cues = np.zeros((2, 4000 if attracts else 300, 2))
    cues[:, :, 0] = np.array([[1.0], [-1.0]]) * (1.0 if attracts else 0.6)
    steps = 4000 if attracts else 1000
    found = holding(layer, jax.device_put(cues), jnp.array([0.0, 1.0]), steps)
    return {"name": name, "computed": steps, **in_numbers(found)}


def in_numbers(found: Holding) -> dict[str, Any]:
    """For a JSON document; sets of mechanisms as words."""
    some = slice(None, None, max(1, len(found.kept[frozenset()]) // 100))
    shown = {_words(on): np.round(row[some], 5) for on, row in found.kept.items()}
    return {
        "steps": found.steps,
        "by": sorted(found.by),
        "alone": {_words(on): steps for on, steps in found.alone.items()},
        "kept": {name: row.tolist() for name, row in shown.items()},
    }


def _words(on: frozenset[Mechanism]) -> str:
    return " and ".join(name for name in MECHANISMS if name in on) or "none"


def examples(
    networks: Networks, delay: int, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of a number and a flag for holding, (count, cue + delay, 2), and the numbers."""
    rng = np.random.default_rng(seed)
    value = rng.uniform(-1, 1, count).astype(np.float32)
    x = np.zeros((count, networks.cue + delay, 2), np.float32)
    x[:, :, 0] = networks.noise * rng.normal(size=x.shape[:2])
    x[:, : networks.cue, 0] = value[:, None]
    x[:, networks.cue :, 1] = 1
    return x, value


def _trained(
    networks: Networks, recurrent: Any, time_constants: Any, folder: Path
) -> dict[str, Any]:
    layer = ORGaNICs(
        2, networks.units, key=jr.key(networks.seed), recurrent=recurrent, drive="unit",
        time_constants=time_constants, rectified=False, dtype=np.float32,
        dt_tau_max_y=0.5, dt_tau_max_a=1.0, dt_tau_max_gates=1.0,
        initial_time_constants=(3.0, 2.0 * networks.delay),
    )  # fmt: skip
    x, value = examples(networks, networks.delay, networks.examples, networks.seed)
    tests = examples(networks, networks.delay, 1000, networks.seed + 1)
    fitted = fit(
        layer, x, value, x_test=tests[0], y_test=tests[1], target="numbers", standardize=False,
        batch_size=64, epochs=networks.epochs, learning_rate=1e-2, weight_decay=0.0,
        seed=networks.seed, out=folder, resume=folder.exists(), progress=False,
    )  # fmt: skip
    cues = np.zeros((9, networks.cue, 2), np.float32)
    cues[:, :, 0] = np.linspace(-1, 1, 9)[:, None]
    trained: Any = fitted.model
    rest = jnp.array([0.0, 1.0], np.float32)
    given = trained.layer, jax.device_put(cues), rest, networks.longer
    found = holding(*given, reference=networks.delay)
    later = _error(fitted, *examples(networks, networks.longer, 500, networks.seed + 2))
    return {
        "recurrent": recurrent,
        "time_constants": time_constants,
        "error": _error(fitted, *tests),
        "error_later": later,
        "computed": networks.longer,
        **in_numbers(found),
    }


def _error(fitted: Fitted, x: np.ndarray, value: np.ndarray) -> float:
    """Mean squared error relative to saying 0 always, 1/3."""
    found = np.asarray(fitted.predict(x)).reshape(-1)
    return float(np.mean(np.square(found - value)) / np.mean(np.square(value)))


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of what holds; `found` is the result of `measure`."""
    hand, trained = found["by_hand"], found["trained"]
    right = [row for row in hand if set(row["by"]) == BY_HAND[row["name"]][0]]
    learned = [row for row in trained if row["error"] < 0.1]
    held = [row for row in trained if row["steps"] >= found["delay"]]
    checks = [
        Check(
            "each neuron set by hand holds by the mechanism that it was given, and by no other",
            f"{len(right)} of {len(hand)}",
            len(right) == len(hand),
        ),
        Check(
            f"networks learn to hold a number for {found['delay']} steps of noise",
            _listed(trained, lambda row: f"{row['error']:.2g}"),
            len(learned) == len(trained),
            tolerance="error below a tenth of that of a constant answer",
        ),
        Check(
            f"they hold it for {found['delay']} steps and longer by a mechanism that does so alone",
            _listed(trained, lambda row: f"{_steps(row['steps'], row)} by {_by(row)}"),
            len(held) == len(trained) and all(row["by"] for row in trained),
            tolerance="all",
        ),
        Check(
            f"they hold it for {found['longer']:,} steps",
            _listed(trained, lambda row: f"{row['error_later']:.2g}"),
            all(row["error_later"] < 0.1 for row in trained),
            tolerance="the same",
            decides=False,
        ),
    ]
    by = _listed(trained, lambda row: _by(row))
    here = f"{len(held)} of {len(trained)} networks hold for the delay and longer; by: {by}"
    return Outcome(here, checks, found, _table(found))


def _table(found: dict[str, Any]) -> Table:
    heads = ("circuit", "holds, steps", "by", *(f"{name} only" for name in MECHANISMS), "error",
             "error later")  # fmt: skip
    rows = []
    for row in [*found["by_hand"], *found["trained"]]:
        errors = [f"{row[name]:.2g}" if name in row else "" for name in ("error", "error_later")]
        alone = [_steps(row["alone"][name], row) for name in MECHANISMS]
        rows.append([_name(row), _steps(row["steps"], row), _by(row), *alone, *errors])
    return Table(heads, rows)


def _steps(steps: int, row: dict[str, Any]) -> str:
    return f"{steps:,} or more" if steps >= row["computed"] else f"{steps:,}"


def _name(row: dict[str, Any]) -> str:
    return row.get("name") or f"{row['recurrent']}, {row['time_constants']}"


def _by(row: dict[str, Any]) -> str:
    return ", ".join(name for name in MECHANISMS if name in row["by"]) or "none of them"


def _listed(rows: list[dict[str, Any]], of: Any) -> str:
    return "; ".join(f"{_name(row)} {of(row)}" for row in rows)


def draw(outcome: Outcome) -> Figure:
    """How much of what the states of different cues differ by is still there after so many steps:
    with all mechanisms (black), with one only, and with none (dotted)."""
    rows = [*outcome.numbers["by_hand"], *outcome.numbers["trained"]]
    columns = 3
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(9, 2.4 * lines), layout="constrained")
    every = _words(frozenset(MECHANISMS))
    styles = {"none": ("k", ":", 1.0), every: ("k", "-", 2.5)}
    styles |= {name: (f"C{i}", "-", 1.2) for i, name in enumerate(MECHANISMS)}
    for i, row in enumerate(rows):
        axes = figure.add_subplot(lines, columns, i + 1)
        for name in (every, *MECHANISMS, "none"):
            colour, style, width = styles[name]
            kept = np.asarray(row["kept"][name])
            t = np.linspace(1, row["computed"], len(kept))
            label = "all" if name == every else name
            axes.plot(t, kept, style, color=colour, lw=width, label=label)
        axes.set(ylim=(-0.1, 2), title=f"{_name(row)}: {_by(row)}", xlabel="steps")
        axes.title.set_fontsize(7)
        if i == 0:
            axes.legend(fontsize=7, frameon=False)
            axes.set_ylabel("kept")
    return figure
