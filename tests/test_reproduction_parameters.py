"""Tables 4, 5 and 7: all is as in the paper, and any difference would show."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from organics.nn import Normalization
from organics.plots import save_figure
from organics.studies.harness.target import Job
from organics.studies.paper import parameters, table4, table5, table7
from organics.training import SequenceConfig, TrainConfig


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "module, on_purpose", [(table4, ["W_r"]), (table5, []), (table7, ["static: recurrent weights"])]
)
def test_it_is_as_in_the_paper(module, on_purpose, tmp_path):
    outcome = module.compute(Job(tmp_path, quick=True))
    differing = [check for check in outcome.checks if not check.holds]
    assert [check.what for check in differing] == on_purpose
    assert all("on purpose" in check.tolerance for check in differing)
    assert len(outcome.table.rows) == len(outcome.checks)
    save_figure(module.draw(outcome), tmp_path / "table.png")


def test_another_layer_is_told_apart():
    def other(key):
        layer = Normalization(40, 50, key=key, recurrent="bounded", dtype=np.float32)
        wrong = jnp.asarray(np.random.default_rng(0).normal(size=(50, 40)), jnp.float32)
        changed = eqx.tree_at(lambda la: la.W_bx, layer, wrong)
        return eqx.tree_at(lambda la: la.beta, changed, jnp.ones(50, jnp.float32))

    described = [
        p._replace(shape=(3, *p.shape)) if p.name == "log_W" else p for p in table4.described()
    ]
    checks = parameters.compare(other, described).checks
    found = {check.what: check.here for check in checks if not check.holds}
    assert "initialisation" in found["W_bx"] and "initialisation" in found["beta"]
    assert "shape" in found["log_W"] and {"W_zx", "sigma"} & found.keys() == set()


@pytest.mark.parametrize(
    "law, good, bad",
    [
        (parameters.uniform(0.0, 1.0), (0, 1), (0, 0.9)),
        (parameters.uniform(-1.0, 1.0), (-1, 1), (-1, 1.01)),
    ],
)
def test_a_law_can_be_broken(law, good, bad):
    draw = lambda ends: np.random.default_rng(0).uniform(*ends, size=(5, 1000))  # noqa: E731
    assert law.holds(draw(good)) and not law.holds(draw(bad))
    normal = np.asarray(jr.normal(jr.key(0), (5, 1000)))
    assert parameters.NORMAL.holds(normal) and not parameters.NORMAL.holds(1.1 * normal)
    assert not parameters.ORTHOGONAL.holds(np.ones((1, 3, 3)))
    assert not parameters.uniform(-1.0, 1.0).holds(np.sign(normal))
    for values, uniform in ((draw((0, 1)), True), (np.abs(normal), False), (draw((-1, 1)), False)):
        scaled = values / np.linalg.norm(values, axis=1, keepdims=True)
        assert parameters.of_unit_norm(0.0, 1.0).holds(scaled) is uniform
    assert not parameters.of_unit_norm(0.0, 1.0).holds(draw((0, 1)))


def test_a_constraint_can_be_broken():
    def build(key):
        return Normalization(40, 50, key=key, recurrent="bounded", dtype=np.float32)

    free = [p._replace(value=p.where) for p in table4.described() if p.name in ("log_W", "beta")]
    found = {check.what: check.here for check in parameters.compare(build, free).checks}
    assert found == dict.fromkeys(("log_W", "beta"), "other constraint")


@pytest.mark.usefixtures("standard_promotion")
def test_another_optimizer_is_told_apart(monkeypatch):
    for other, differing in ((optax.sgd(1e-2), 2), (optax.adamw(1e-2, weight_decay=1e-5), 1)):
        monkeypatch.setattr(table7, "make_optimizer", lambda *_, other=other: other)
        found, paper = table7.here(SequenceConfig()), table7.PAPER["sequential"]
        assert sum(found[name] != paper[name] for name in paper) == differing


@pytest.mark.usefixtures("standard_promotion")
def test_another_protocol_is_told_apart():
    changed = dataclasses.replace(SequenceConfig(), learning_rate=0.02, schedule="constant")
    found = table7.here(changed)
    paper = table7.PAPER["sequential"]
    assert {name for name in paper if found[name] != paper[name]} == {
        "learning rate",
        "learning rate after 30 epochs",
    }
    static = dataclasses.replace(TrainConfig(), recurrent="bounded")
    assert table7.here(static) == table7.PAPER["static"]
