"""Figures 5 and 6: the network of two layers, and what its spectra say."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from organics.linear_stability import stability
from organics.plots import save_figure
from organics.reproduction import fig5, fig6
from organics.reproduction.target import Job
from organics.reproduction.two_layers import Spectrum, TwoLayers
from organics.training.evaluation import as_examples, load_dataset


@pytest.mark.usefixtures("standard_promotion")
def test_figures_5_and_6_of_a_small_network(tmp_path, monkeypatch):
    """One test, as all of it is about one network, which takes a while to compile and train."""
    told = []
    job = Job(
        tmp_path / "kept", quick=True, runs=(tmp_path / "runs",), progress=lambda *a: told.append(a)
    )
    network = TwoLayers(job, share=0.3)
    assert told[-1] == (0.3, "training, epoch 3 of 3") and told == sorted(told)
    spectra_are_those_of_the_circuits(network, job.folder / "few")
    with pytest.raises(ValueError, match="remove that folder"):
        network.after(7)
    histogram, course = fig5.compute(job), fig6.compute(job)
    figures_tell_what_was_found(histogram, course)
    for outcome, module in ((histogram, fig5), (course, fig6)):
        save_figure(module.draw(outcome), tmp_path / "figure.png")
    # what is there is not computed again
    monkeypatch.setattr("organics.reproduction.two_layers.spectral_abscissae", None)
    assert fig6.compute(job).checks == course.checks


def spectra_are_those_of_the_circuits(network, keep):
    dataset = load_dataset(network.config)
    model = network.after(2)
    spectrum = network.spectrum(model, 3, "epoch2", keep)
    examples = as_examples(dataset.test_images[:3], dataset.test_labels[:3], dataset.max_value)
    inputs, _ = examples.take(jnp.arange(3, dtype=jnp.int32), np.float64)
    settle = eqx.filter_jit(stability)
    for i, x in enumerate(inputs):
        for layer, (circuit, z) in enumerate(model.circuits(x)):
            settled = settle(circuit, z)
            np.testing.assert_allclose(
                spectrum.abscissa[layer, i], settled.spectral_abscissa, rtol=1e-9
            )
            assert spectrum.stable[layer, i] == settled.stable


def figures_tell_what_was_found(histogram, course):
    for layer, held in enumerate(histogram.numbers["histograms"]["trained"]):
        assert sum(held["counts"]) == histogram.numbers["inputs"]["trained"]
        largest = histogram.numbers["abscissa_per_ms"]["trained"][layer][-1]
        assert held["edges"][-2] <= largest + 1e-5 and largest <= held["edges"][-1] + 1e-5
    assert course.numbers["epoch"] == [0, 1, 2, 3]
    assert np.shape(course.numbers["largest_per_ms"]) == (2, 4)
    assert [check.holds for check in histogram.checks[:3]] == [True] * 3


def test_one_unstable_input_makes_the_check_fail():
    stable = Spectrum(np.full((2, 50), -0.25), np.full((2, 50), True))
    broken = Spectrum(stable.abscissa.copy(), stable.stable.copy())
    broken.abscissa[1, 7], broken.stable[1, 7] = 0.01, False
    outcome = fig5.conclude(broken, stable, 0.98)
    assert [check.holds for check in outcome.checks] == [True, False, True, False]
    assert [check.holds for check in fig6.conclude([stable, stable]).checks][::2] == [True, True]
    assert [check.holds for check in fig6.conclude([stable, broken]).checks][::2] == [True, False]
