"""The study of what holds a value: its examples, and verdicts from numbers."""

import numpy as np

from organics.nn.retention import MECHANISMS, Holding
from organics.studies.ours import memory

NONE, EVERY = frozenset(), frozenset(MECHANISMS)


def row(**values):
    sets = [NONE, *(frozenset({name}) for name in MECHANISMS), EVERY]
    kept = {on: np.linspace(1, 0.6 if "freeze" in on else 0, 1000) for on in sets}
    alone = {on: 1000 if "freeze" in on else 500 for on in sets}
    found = Holding(1000, frozenset({"freeze"}), alone, kept)
    return {"computed": 1000, **memory.in_numbers(found), **values}


def test_examples_are_a_value_then_noise_and_a_flag():
    networks = memory.Networks(cue=5, noise=0.1)
    x, value = memory.examples(networks, 50, 400, 0)
    assert x.shape == (400, 55, 2) and x.dtype == np.float32
    assert np.all(x[:, :5, 0] == value[:, None])
    assert np.all(x[:, :5, 1] == 0) and np.all(x[:, 5:, 1] == 1)
    np.testing.assert_allclose(x[:, 5:, 0].std(), 0.1, rtol=0.05)
    np.testing.assert_allclose(np.mean(value**2), 1 / 3, rtol=0.1)
    assert not np.any(memory.examples(networks, 50, 400, 1)[1] == value)


def test_the_verdict_is_from_the_numbers():
    names = list(memory.BY_HAND)
    hand = [row(name=name, by=sorted(memory.BY_HAND[name][0])) for name in names]
    network = row(recurrent="identity", time_constants="modulated", error=0.01, error_later=0.3)
    found = {"delay": 100, "longer": 1000, "by_hand": hand, "trained": [network]}
    outcome = memory.conclude(found)
    assert [check.holds for check in outcome.checks] == [True, True, True, False]
    assert outcome.here == (
        "1 of 1 networks hold for the delay and longer; by: identity, modulated freeze"
    )
    hand[1]["by"], network["error"] = ["attract"], 0.2
    checks = memory.conclude(found).checks
    assert [check.holds for check in checks] == [False, False, True, False]
    for changed in ({"by": []}, {"steps": 50}):
        assert not memory.conclude(found | {"trained": [network | changed]}).checks[2].holds
    assert outcome.table is not None
    assert outcome.table.rows[-1][:3] == ["identity, modulated", "1,000 or more", "freeze"]
    figure = memory.draw(outcome)
    assert len(figure.axes) == len(hand) + 1
    line = np.asarray(figure.axes[0].lines[0].get_ydata())
    np.testing.assert_allclose(line[[0, -1]], [1, 0.6], atol=5e-3)
