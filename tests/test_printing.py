"""Printed results: a verdict, rounded numbers, units."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import organics
from organics.circuit.circuit import Circuit
from organics.printing import Lines, numbers

EXAMPLES = Path(__file__).parents[1] / "examples"
CIRCUIT, DRIVES = Circuit([[1.0, 0.5], [0.5, 1.0]], tau_a=10.0), jnp.asarray([[1.0, -0.3], [0, 2]])


def test_a_verdict_comes_first_and_numbers_are_rounded():
    linear = organics.stability(organics.steady_state(CIRCUIT, DRIVES[0]))
    verdict, *lines = str(linear).splitlines()
    assert verdict == "stable"
    named = {line.split("  ")[1]: line for line in lines}
    assert f"{float(linear.spectral_abscissa):.6g} 1/ms" in named["largest real part"]
    assert named["leading frequency"].endswith(f"{float(linear.leading_frequency):.6g} Hz")
    assert "closed form" in named["found by"] and "Array(" not in str(linear)
    assert str(linear.point).startswith("at rest\n")
    certificate = str(organics.certify(organics.steady_state(CIRCUIT, DRIVES[0])))
    assert certificate.startswith("certificate (diagonal Lyapunov): holds\n")
    assert "T B + B^T T > 0" in certificate and "FAILS" not in certificate
    trajectory = organics.simulate(CIRCUIT, DRIVES[0], 50.0)
    assert str(trajectory).startswith("simulated\n") and "101 from 0 to 50 ms" in str(trajectory)


def test_negative_answers():
    circuit, (z,) = organics.load_circuit(EXAMPLES / "no_stable_state.json")
    assert str(organics.stability(organics.steady_state(circuit, z))).startswith("NOT stable\n")
    failed = organics.simulate(circuit, z, 50.0, throw=False)
    assert str(failed).startswith("failed (divergence) at 13.4")
    proof = str(organics.prove(organics.steady_state(circuit, z)))
    assert proof.startswith("disproved: ") and "precision   53 bits" in proof


def test_batches_say_how_many():
    circuit, (z,) = organics.load_circuit(EXAMPLES / "no_stable_state.json")
    drives = jnp.stack([z, 0 * z])
    points = jax.vmap(organics.steady_state, (None, 0))(circuit, drives)
    found = jax.vmap(organics.stability)(points)
    assert str(found).startswith(f"{int(found.stable.sum())} of 2 stable\n")
    assert "numbers of shape (2, 1) from" in str(found.point)


def test_while_jax_traces_there_are_no_numbers():
    said = []

    @jax.jit
    def trace(z):
        steady = organics.steady_state(CIRCUIT, z)
        said.extend([str(steady), steady._repr_html_()])
        return steady.residual

    trace(DRIVES[0])
    assert said[0].startswith("OperatingPoint(") and said[1].startswith("<pre>OperatingPoint(")


def test_html_is_a_table_of_escaped_words():
    page = organics.certify(organics.steady_state(CIRCUIT, DRIVES[0]))._repr_html_()
    assert "<b>certificate (diagonal Lyapunov): holds</b>" in page and "B^-T 1 &gt; 0" in page
    assert page.count("<tr>") == page.count("</tr>") > 4
    assert "&lt;i&gt;" in Lines("<i>", ()).html()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 / 3, "0.333333"),
        (np.arange(3.0), "[0. 1. 2.]"),
        (np.arange(99), "[ 0  1  2 ... 96 97 98]"),
    ],
)
def test_numbers(value, words):
    assert numbers(value) == words and numbers(value, "Hz") == f"{words} Hz"
