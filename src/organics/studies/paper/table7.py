"""Table 7: the hyperparameters of training in the code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.training.config import AnyConfig, SequenceConfig, TrainConfig
from organics.training.step import learning_rate, make_optimizer

PAPER: dict[str, dict[str, Any]] = {
    "static": {
        "optimizer": "Adam",
        "weight decay in the gradient": "yes",
        "learning rate": 1e-3,
        "weight decay": 1e-5,
        "batch size": 256,
        "learning rate after 30 epochs": 1e-3,
        "gradient clipping": None,
        "recurrent weights": "bounded",
    },
    "sequential": {
        "optimizer": "Adam",
        "weight decay in the gradient": "yes",
        "learning rate": 1e-2,
        "weight decay": 1e-5,
        "batch size": 256,
        "learning rate after 30 epochs": 8e-3,
        "gradient clipping": None,
        "recurrent weights": "free",
        "dt_tau_max y": 0.02,
        "dt_tau_max a": 0.005,
        "dt_tau_max gates": 0.1,
    },
}
"""The schedule is described by its effect after 30 epochs."""

_ON_PURPOSE = {
    ("static", "recurrent weights"): "equal; on purpose: with the identity the steady state is in "
    "closed form, and stable whatever is learned",
}


def here(config: AnyConfig) -> dict[str, Any]:
    """The same for the default settings of a run."""
    per_epoch = 10
    rate = learning_rate(config, config.epochs * per_epoch)
    found = {
        **_optimizer(config),
        "learning rate": config.learning_rate,
        "weight decay": config.weight_decay,
        "batch size": config.batch_size,
        "learning rate after 30 epochs": float(f"{np.asarray(rate(30 * per_epoch)).item():.6g}"),
        "gradient clipping": getattr(config, "clip_norm", None),
        "recurrent weights": config.recurrent,
    }
    if isinstance(config, SequenceConfig):
        options = config.layer_options(784)
        found |= {f"dt_tau_max {n}": options[f"dt_tau_max_{n}"] for n in ("y", "a", "gates")}
    return found


def compute(job: Job) -> Outcome:
    """Compare the default settings with the paper's."""
    del job
    checks, rows = [], []
    for kind, config in (("static", TrainConfig()), ("sequential", SequenceConfig())):
        found = here(config)
        for name, paper in PAPER[kind].items():
            words = [_words(value) for value in (paper, found[name])]
            checks.append(
                Check(
                    f"{kind}: {name}",
                    words[1],
                    found[name] == paper,
                    words[0],
                    _ON_PURPOSE.get((kind, name), "equal"),
                )
            )
            rows.append([kind, name, *words])
    agreeing = sum(bool(check.holds) for check in checks)
    return Outcome(
        here=f"{agreeing} of {len(checks)} hyperparameters as in the paper",
        checks=checks,
        numbers={"rows": rows},
        table=Table(("training", "hyperparameter", "paper", "here, by default"), rows),
    )


def _optimizer(config: AnyConfig) -> dict[str, Any]:
    """Identify the optimizer by its first step: Adam's equals the learning rate for any gradient
    and, with weight decay in the gradient, also for a zero one."""
    optimizer = make_optimizer(config, 10 * config.epochs)
    weights = jnp.asarray([2.0, -2.0], jnp.float32)
    rate = np.asarray(jax.jit(learning_rate(config, 10 * config.epochs))(0)).item()

    @jax.jit
    def first_step(gradients: Array) -> Any:
        change, _ = optimizer.update(gradients, optimizer.init(weights), weights)
        return jnp.asarray(change)

    def in_rates(gradient: list[float]) -> np.ndarray:
        return np.asarray(first_step(np.asarray(gradient, np.float32))) / rate

    adam = np.allclose(in_rates([1.0, 1e-3]), [-1, -1], rtol=0.01)
    decays = np.allclose(in_rates([0.0, 0.0]), [-1, 1], rtol=0.01)
    return {
        "optimizer": "Adam" if adam else "another",
        "weight decay in the gradient": "yes" if decays else "no",
    }


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "none" if value is None else f"{value:g}"
