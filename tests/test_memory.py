import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from organics.circuit.circuit import Circuit
from organics.circuit.weights import Convolution
from organics.linear_stability.certificate import certify
from organics.machine import memory
from organics.machine.memory import require_memory
from organics.rest.search import steady_state
from organics.simulation.noise import Noise, simulate_noisy
from organics.spectra import power_spectrum
from organics.trials import run_trials


def test_what_cannot_fit_is_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 8 * 10**9)
    require_memory(8 * 10**9, "n", "a matrix")
    words = "`n` asks for too much memory: a matrix needs 9.0 GB or more, and there are 8.0 GB"
    with pytest.raises(ValueError, match=words):
        require_memory(9 * 10**9, "n", "a matrix")
    for size in (10**40, float("inf")):
        with pytest.raises(ValueError, match="`n` asks for too much memory"):
            require_memory(size, "n", "a matrix")
    monkeypatch.setattr(memory, "available", lambda: None)
    require_memory(10**40, "n", "a matrix")


def test_a_limit_of_the_group_of_processes_counts(tmp_path, monkeypatch):
    whole = memory.available()
    assert whole is None or whole > 2**28
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_LIMITS", (limit, tmp_path / "absent"))
    for text, least in (("1000000\n", 10**6), ("max\n", whole), (f"{2**60}\n", whole)):
        limit.write_text(text)
        assert whole is None or memory.available() == least or whole < least


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: run_trials(200_000, 5), "n"),
        (lambda: run_trials(2, 10**13), "trials"),
        (lambda: noisy(10**13, 1), "steps"),
        (lambda: noisy(10**13, 10**13), "save_every"),
    ],
)
def test_calls_that_ask_for_too_much_are_refused_by_name(call, name):
    with pytest.raises(ValueError, match=f"`{name}` asks for too much memory"):
        call()


def noisy(steps, save_every):
    circuit = Circuit([[1.0]])
    return simulate_noisy(
        circuit, circuit.b, Noise(0.1), 0.01, steps, key=jr.key(0), save_every=save_every
    )


def test_matrices_of_all_pairs_are_refused_where_they_do_not_fit(monkeypatch):
    W = Convolution(jnp.full((1, 1, 1, 3), 0.3), 1, 100, "periodic")
    point = steady_state(Circuit(W), jnp.ones(100))
    monkeypatch.setattr(memory, "available", lambda: 10**5)
    for work in (
        lambda: certify(point),
        lambda: power_spectrum(point, np.array([0.01]), Noise(1.0, 0.0)),
    ):
        with pytest.raises(ValueError, match=r"`point` asks for too much memory: .* neurons"):
            work()
