"""All layers, models and tasks fulfil their protocols."""

from typing import get_args

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from organics import baselines, models, names, nn
from organics.nn.protocols import SequenceLayer, StaticLayer
from organics.training import FileConfig, SequenceConfig, TrainConfig
from organics.training.task import Task, task_of

M, N = 2, 3  # inputs and neurons
CLASSIFIERS = {
    **{name: TrainConfig(dataset="digits", model=name, layers=(4, 3), encoder=(8,))
       for name in get_args(names.ModelName)},
    **{f"{name} in time": SequenceConfig(task="sdigits", model=name, units=3)
       for name in get_args(names.SequenceModelName)},
    "a file at rest": FileConfig(features=4, outputs=3, units=3, encoder=(8,)),
    "a file in time": FileConfig(steps=5, features=2, outputs=3, units=3, at="every"),
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda key: nn.Normalization(M, N, key=key),
        lambda key: nn.SSN(M, N, 2, key=key),
        lambda key: models.Dense(M, N, key=key),
    ],
)
def test_layers_at_rest(make):
    layer = make(jr.key(0))
    assert isinstance(layer, StaticLayer)
    x = jax.device_put(np.array([0.5, 0.2]))
    found = eqx.filter_jit(lambda layer, x: (layer.settle(x), layer.linearize(x)))(layer, x)
    settled, near = found
    assert settled.rates.shape == (N,) and settled.found
    assert (near is None) == (layer.units is None)
    assert near is None or near.jacobian.shape[0] % layer.units == 0


@pytest.mark.parametrize("name", get_args(names.SequenceModelName))
def test_layers_in_time(name):
    def build(key):
        if name == "organics":
            return nn.ORGaNICs(M, N, key=key)
        return baselines.build(name, M, N, key=key)

    layer = eqx.filter_eval_shape(build, jr.key(0))
    assert isinstance(layer, SequenceLayer) and layer.hidden_size == N


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_models_and_tasks(name):
    task = task_of(CLASSIFIERS[name])
    model = eqx.filter_eval_shape(task.build)
    assert isinstance(task, Task) and isinstance(model, models.Model)
    at_rest = CLASSIFIERS[name].has_circuits_at_rest
    assert bool(model.circuit_sizes()) == at_rest
    assert task.setting_of_size(model) in ("layers", "encoder", "units")
    assert (task.states_kept() > 0) == (name.endswith("in time"))
