"""Table 5: the parameters of the recurrent layer in the code."""

from typing import Any

import numpy as np

from organics.nn import ORGaNICs
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Job, Outcome
from organics.studies.paper.parameters import (
    NORMAL,
    ORTHOGONAL,
    Parameter,
    compare,
    constant,
    of_unit_norm,
    off_diagonal,
    uniform,
)

M, H = 1, 64  # inputs and neurons of the examined layer
LARGEST: dict[str, Any] = {"dt_tau_max_y": 0.02, "dt_tau_max_a": 0.005, "dt_tau_max_gates": 0.1}


def described() -> list[Parameter]:
    """The paper's parameterisation and initialisation of the recurrent layer."""
    of_input = uniform(-1 / M**0.5, 1 / M**0.5, "U(-1/sqrt(m), 1/sqrt(m))")
    of_state = uniform(-1 / H**0.5, 1 / H**0.5, "U(-1/sqrt(H), 1/sqrt(H))")
    log_uniform = off_diagonal(uniform(0.0, 1.0), np.exp, "log U(0, 1), diagonal 0")
    gates = [
        Parameter(
            f"W_{gate}{source}", _weights(f"W_{gate}{source}"),
            (H, M) if source == "x" else (H, H), True, of_input if source == "x" else of_state,
        )
        for gate in ("b0", "b")
        for source in ("x", "y", "a")
    ]  # fmt: skip
    bounds = np.asarray([LARGEST[f"dt_tau_max_{name}"] for name in ("y", "a", "gates", "gates")])
    return [
        Parameter("W_zx", lambda la: la.cells[0].W_zx, (H, M), True, of_unit_norm(-1.0, 1.0)),
        Parameter("W_r", lambda la: la.cells[0].W_r, (H, H), True, ORTHOGONAL),
        Parameter(
            "log_W", lambda la: la.cells[0].log_W, (H, H), True, log_uniform,
            "0 <= W <= 1", lambda la: la.cells[0].weights().normalization,
            lambda W: bool(np.all((W >= 0) & (W <= 1))),
        ),
        *gates,
        Parameter(
            "dt (y, a, b0, b)", lambda la: la.cells[0].raw_rates, (4, H), True, NORMAL,
            "0 <= dt/tau <= largest", lambda la: la.cells[0].rates,
            lambda rates: bool(np.all((rates >= 0) & (rates <= bounds[:, None] * (1 + 1e-6)))),
        ),
        Parameter("sigma^2", lambda la: la.cells[0].weights().offset, (H,), False, constant(1.0)),
        Parameter("y at the start", _start("y"), (H,), False, of_unit_norm(0.0, 1.0)),
        Parameter("a at the start", _start("a"), (H,), False, uniform(0.0, 1.0)),
        Parameter("b0 at the start", _start("b0"), (H,), False, constant(1.0)),
        Parameter("b at the start", _start("b"), (H,), False, uniform(0.0, 1.0)),
    ]  # fmt: skip


def _weights(name: str):
    return lambda layer: getattr(layer.cells[0], name)


def _start(name: str):
    return lambda layer: getattr(layer.initial_state()[0], name)


def compute(job: Job) -> Outcome:
    """Examine layers with free recurrent weights and learned time constants."""
    del job

    def build(key):
        return ORGaNICs(M, H, key=key, dtype=np.float32, **LARGEST)

    return compare(build, described())
