"""Figures 5 and 6: the network of two layers and its spectra."""

from operator import itemgetter

import jax
import numpy as np
import pytest
from programs import as_many_to_test, at_rest

from organics.circuit.file import load_circuit
from organics.plots import save_figure
from organics.simulation import resting
from organics.studies.harness.target import Job
from organics.studies.networks import two_layers
from organics.studies.networks.two_layers import Spectrum, TwoLayers
from organics.studies.paper import fig5, fig6
from organics.training import loop

SOME = np.array([3, 1, 0])  # of the test inputs; another number of them compiles again


@pytest.mark.usefixtures("standard_promotion")
def test_figures_5_and_6_of_a_small_network(tmp_path, monkeypatch):
    """One test, because its one network takes a while to compile and train."""
    monkeypatch.setattr(two_layers, "load_dataset", as_many_to_test)
    monkeypatch.setattr(loop, "load_task", lambda task: as_many_to_test(task.config))
    monkeypatch.setattr(resting, "_BATCH", 6 * len(SOME))
    told = []
    job = Job(
        tmp_path / "kept",
        quick=True,
        runs=(tmp_path / "runs",),
        out=tmp_path / "results",
        progress=lambda *a: told.append(a),
    )
    network = TwoLayers(job, share=0.3)
    assert told[-1] == (0.3, "training, epoch 3 of 3") and told == sorted(told)
    with pytest.raises(ValueError, match="remove that folder"):
        network.after(7)
    histogram, course = fig5.compute(job), fig6.compute(job)
    figures_tell_what_was_found(histogram, course)
    spectra_are_those_of_the_circuits(network, job.folder)
    what_is_not_stable_is_simulated_and_written(network, job)
    for outcome, module in ((histogram, fig5), (course, fig6)):
        save_figure(module.draw(outcome), tmp_path / "figure.png")
    # what is there is not computed again
    monkeypatch.setattr("organics.studies.networks.two_layers.spectral_abscissae", None)
    assert fig6.compute(job).checks == course.checks


def spectra_are_those_of_the_circuits(network, keep):
    model = network.after(2)
    spectrum = network.spectrum(model, fig6.QUICK_INPUTS, "epoch2", keep)
    # pieces are those of one model, whatever was kept under the same name
    other = network.spectrum(network.after(0), fig6.QUICK_INPUTS, "epoch2", keep)
    assert not np.allclose(other.abscissa, spectrum.abscissa)
    for layer in range(2):
        circuits, drives = network.circuits(model, layer, SOME)
        for i, index in enumerate(SOME):
            circuit, z = jax.tree.map(itemgetter(i), (circuits, drives))
            abscissa = at_rest(circuit, z)[2].real.max()
            np.testing.assert_allclose(spectrum.abscissa[layer, index], abscissa, rtol=1e-9)
            assert spectrum.stable[layer, index] == (abscissa < 0)


def what_is_not_stable_is_simulated_and_written(network, job):
    """A made-up spectrum calls some stable circuits unstable; simulated, they come to rest."""
    model = network.best()
    abscissa, stable = np.full((2, 4), -0.1), np.full((2, 4), True)
    abscissa[1, SOME], stable[1, SOME] = [0.3, 0.2, 0.1], False
    called = Spectrum(abscissa, stable)
    assert fig5._unstable(job, network, model, 0, called) == []
    worst, *others = fig5._unstable(job, network, model, 1, called)
    assert [row["input"] for row in (worst, *others)] == SOME.tolist()
    assert all(row["comes_to_rest"] for row in (worst, *others))
    assert all(row["file"] is None for row in others)
    circuit, (z,) = load_circuit(job.out / worst["file"], np.float64)
    wanted, drives = network.circuits(model, 1, SOME)
    np.testing.assert_allclose(circuit.W, wanted.W[0], rtol=1e-12)
    # what the layer below comes to rest at is found to some 1e-12, here and there
    np.testing.assert_allclose(z, drives[0], rtol=1e-8, atol=1e-10)


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
    row = {"layer": 2, "input": 7, "abscissa_per_ms": 0.01, "comes_to_rest": False, "file": None}
    outcome = fig5.conclude(broken, stable, 0.98, [row])
    assert [check.holds for check in outcome.checks] == [True, False, True, False, False]
    assert outcome.verdict == "partly"
    assert [check.holds for check in fig6.conclude([stable, stable]).checks][::2] == [True, True]
    assert [check.holds for check in fig6.conclude([stable, broken]).checks][::2] == [True, False]
