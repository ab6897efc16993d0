"""The studies of patterns on a ring and of networks on images, at a small size, and verdicts."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from organics.studies.harness.target import Job
from organics.studies.ours import images, patterns

RESULTS = Path(__file__).parents[1] / "results" / "ours"


def test_two_exponentials_are_told_from_their_sum():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(size=2) * 0.05 + 1j * rng.uniform(-1, 1, 2)
        sizes = rng.normal(size=2) + 1j * rng.normal(size=2)
        course = np.exp(np.arange(60)[:, None] * values) @ sizes
        want = values[np.argsort(-values.real)]
        np.testing.assert_allclose(patterns.prony(course), want, atol=1e-7)


def test_the_onset_of_a_still_pattern_is_the_closed_form():
    with jax.enable_x64(True):
        assert patterns.onset("turing") == pytest.approx(1.552819, abs=1e-6)


def test_a_wave_grows_in_a_simulation_as_predicted():
    """One that travels: its rate, its frequency and its speed."""
    circuit, z = patterns.circuit("travelling", 2.0)
    known = patterns.dispersion(circuit, z)
    found = patterns.rates(patterns.Sample(linear=60.0), circuit, z, known)
    assert found["rate"] == pytest.approx(known.leading.rate, abs=1e-5)
    assert found["frequency"] == pytest.approx(known.leading.frequency, abs=1e-5)


def test_verdicts_on_patterns_follow_from_the_numbers():
    found = json.loads((RESULTS / "patterns.json").read_text())["numbers"]
    assert patterns.conclude(found).verdict == "holds"
    assert len(patterns.draw(patterns.conclude(found)).axes) == 6
    found["circuits"]["travelling"]["late"]["speed"] *= 1.1
    assert patterns.conclude(found).verdict == "partly"


def test_networks_are_of_about_the_same_size(tmp_path):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):  # as Optax needs
        job = Job(tmp_path, quick=True)
        sample = images.Sample(
            datasets=("digits",),
            slow_datasets=(),
            channels=2,
            images=100,
            steps=2,
            tests=50,
            seeds=1,
        )
        found = images.measure(sample, job)
    sizes = [one["parameters"] for one in found["accuracy"]["digits"].values()]
    learned = images.Network("bounded", 2, 8, key=jax.random.key(0))
    sizes.append(sum(leaf.size for leaf in jax.tree.leaves(learned)))
    assert max(sizes) < 1.3 * min(sizes)
    outcome = images.conclude(found)
    assert outcome.table is not None and len(outcome.table.rows) == 2
    assert all(0 <= x <= 1 for one in found["accuracy"]["digits"].values() for x in one["noise"][0])
    again = images.measure(sample, job)  # from what was kept
    np.testing.assert_array_equal(
        again["accuracy"]["digits"]["plain"]["noise"], found["accuracy"]["digits"]["plain"]["noise"]
    )


def test_verdicts_on_images_follow_from_the_numbers():
    found = json.loads((RESULTS / "images.json").read_text())["numbers"]
    before = images.conclude(found).verdict
    assert before in ("holds", "partly", "does not hold")
    for models in found["accuracy"].values():
        for change in ("noise", "contrast"):
            ahead = np.asarray(models["plain"][change]) + 0.1
            models["identity"][change] = ahead.tolist()
    assert images.conclude(found).verdict == "holds"
