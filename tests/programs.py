"""Programs and references that several test files share, in the same shapes."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import numpy as np
import scipy.integrate
import scipy.optimize

from organics.linear_stability.spectrum import stability
from organics.rest.search import steady_state
from organics.training import Report
from organics.training.evaluation import build_model, load_dataset
from organics.training.run_folder import RunFolder
from organics.trials import trial

solve = jax.jit(steady_state)


@partial(jax.jit, static_argnums=(0, 2))
def stability_of_trial(seed, index, n, spectral_norm):
    """The stability of one circuit by itself, drawn as in `organics.trials`."""
    return stability(steady_state(*trial(seed, index, n, spectral_norm)))


class Silent(eqx.Module):
    """A model without a loss, which reports nothing about itself."""

    def monitor(self):
        return {}

    def diagnose(self, inputs):
        del inputs
        return {}

    def circuit_sizes(self):
        return []

    def linearize(self, x):
        del x
        return []


def as_many_to_test(config):
    """The data set of a run, with as many images to test as to validate: one shape to compile."""
    dataset = load_dataset(config)
    kept = slice(dataset.n_validation)
    return dataclasses.replace(
        dataset, test_images=dataset.test_images[kept], test_labels=dataset.test_labels[kept]
    )


def whole_batches(config):
    """The same, without a smaller last training batch."""
    dataset = as_many_to_test(config)
    training = len(dataset.train_labels) - dataset.n_validation
    kept = slice(dataset.n_validation + training // config.batch_size * config.batch_size)
    return dataclasses.replace(
        dataset, train_images=dataset.train_images[kept], train_labels=dataset.train_labels[kept]
    )


def at_rest(circuit, z, start=None):
    """Steady state near `start`, or normalization, by SciPy; there, by complex steps, the Jacobian
    of the imbalance and the eigenvalues of that of the velocity."""
    names = ("W", "b", "b0", "sigma", "tau_y", "tau_a")
    W, b, b0, sigma, *taus = (np.asarray(getattr(circuit, name)) for name in names)
    d, c, n = b * np.asarray(z), (b0 * sigma) ** 2, len(b)
    W_r = np.eye(n) if circuit.W_r is None else np.asarray(circuit.W_r)

    def imbalance(x):
        y, a = x[:n], x[n:]
        q = np.where(y.real > 0, y, 0) if circuit.rectified else y
        return np.concatenate([-y + d + (1 - np.sqrt(a)) * (W_r @ q), -a + c + W @ (q**2 * a)])

    if start is None:
        a = c + W @ d**2
        start = np.concatenate([d / np.sqrt(a), a])
    found = scipy.optimize.root(imbalance, start, tol=1e-13)
    steps = found.x[:, None] + 1e-30j * np.eye(2 * n)
    J = np.stack([imbalance(x) for x in steps.T], axis=1).imag / 1e-30
    return found.x, J, np.linalg.eigvals(J / np.concatenate(taus)[:, None])


def simulated(circuit, z, t, start=None):
    """`y` and `a` at times `t`, each (t, n), under the drive `z(t)`, by SciPy from the equations.

    A given `start` is at the first of `t`; else it is the rest without input, at time 0.
    """
    names = ("W", "b", "b0", "sigma", "tau_y", "tau_a")
    W, b, b0, sigma, *taus = (np.asarray(getattr(circuit, name), float) for name in names)
    n, c, tau = len(b), (b0 * sigma) ** 2, np.concatenate(taus)
    W_r = np.eye(n) if circuit.W_r is None else np.asarray(circuit.W_r, float)

    def velocity(t, x):
        y, a = x[:n], np.maximum(x[n:], 0)
        q = np.maximum(y, 0) if circuit.rectified else y
        dy = -y + b * z(t) + (1 - np.sqrt(a)) * (W_r @ q)
        return np.concatenate([dy, -x[n:] + c + W @ (q**2 * a)]) / tau

    begin = 0.0 if start is None else t[0]
    at_begin = np.concatenate([np.zeros(n), c] if start is None else start)
    ends, options = (begin, t[-1]), {"rtol": 1e-9, "atol": 1e-11}
    found = scipy.integrate.solve_ivp(velocity, ends, at_begin, "DOP853", t, **options)
    return found.y[:n].T, found.y[n:].T


def equations_in(jaxpr):
    """All equations of a program and of what it calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations_in(inner)


def stored_run(config, folder):
    """The folder of a run that has a model, but was not trained."""
    with RunFolder.begin(folder, config) as begun:
        begun.save_model(build_model(config), 1)
    return folder


def untrained_report(config, validated, tested):
    """The report of a run on sequences that claims to have learned, but did not."""
    return Report(
        dataset=config.task, model=config.model, layers=(config.units,), seed=config.seed,
        recurrent=config.recurrent, parameters=1, epochs=config.epochs, best_epoch=1, test_loss=1.0,
        validation_accuracy=validated, test_accuracy=tested, seconds_per_epoch=1.0, device="",
        platform="", versions={},
    )  # fmt: skip
