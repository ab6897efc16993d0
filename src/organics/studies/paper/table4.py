"""Table 4: the parameters of the static layer in the code."""

import jax.numpy as jnp
import numpy as np

from organics.nn import Normalization
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Job, Outcome
from organics.studies.paper.parameters import (
    IDENTITY,
    Parameter,
    compare,
    constant,
    off_diagonal,
    uniform,
)

M, N = 40, 50  # inputs and neurons of the examined layer


def described() -> list[Parameter]:
    """The paper's parameterisation and initialisation of the static layer."""
    limit = 1 / M**0.5
    kaiming = uniform(-limit, limit, "U(-1/sqrt(m), 1/sqrt(m))")
    x = jnp.linspace(0, 1, M, dtype=jnp.float32)
    return [
        Parameter(
            "W_zx", lambda la: la.W_zx, (N, M), True, kaiming,
            "|z| = 1", lambda la: la.circuit(x)[1], lambda z: abs(np.linalg.norm(z) - 1) < 1e-5,
        ),
        Parameter(
            "W_bx", lambda la: la.W_bx, (N, M), True, kaiming,
            "0 < b <= 1, 0 by rounding only", lambda la: la.circuit(x)[0].b, _in_unit_interval,
        ),
        Parameter(
            "W_r", lambda la: la.W_r, (N, N), True, IDENTITY,
            "spectral norm = 1", lambda la: la.circuit(x)[0].W_r,
            lambda W: abs(np.linalg.norm(W, 2) - 1) < 1e-5,
            "on purpose: scaled down to 1, never up, as the conjecture asks no more",
        ),
        Parameter(
            "log_W", lambda la: la.log_W, (N, N), True, off_diagonal(uniform(-1.0, 0.0)),
            "W >= 0", lambda la: la.circuit(x)[0].W, lambda W: bool(np.all(W >= 0)),
        ),
        Parameter(
            "beta", lambda la: la.beta, (N,), True, constant(0.0),
            "0 < b0 <= 1, 0 by rounding only", lambda la: la.circuit(x)[0].b0, _in_unit_interval,
        ),
        Parameter("sigma", lambda la: la.sigma, (), False, constant(1.0)),
    ]  # fmt: skip


def _in_unit_interval(b: np.ndarray) -> bool:
    return bool(np.all((b >= 0) & (b <= 1)))  # 0 only by rounding


def compute(job: Job) -> Outcome:
    """Examine layers with learned recurrent weights."""
    del job

    def build(key):
        return Normalization(M, N, key=key, recurrent="bounded", dtype=np.float32)

    return compare(build, described())
