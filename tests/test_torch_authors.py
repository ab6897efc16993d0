"""Networks as the paper's authors store them, against their equations in NumPy. With PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from organics.torch import Normalization, ORGaNICs  # noqa: E402

M, N, STEPS = 3, 16, 9
MAXIMA = {"dt_tau_max_y": 0.3, "dt_tau_max_a": 0.2, "dt_tau_max_b": 0.7}
OURS = {name.replace("max_b", "max_gates"): value for name, value in MAXIMA.items()}


def network(seed=0, identity=False, fixed=False):
    """The weights of their `rnn`, with entries of `log_Way` on both sides of the clamp at 0."""
    rng = np.random.default_rng(seed)
    square = ("Wr.weight", "Wby0", "Wba0", "Wby1", "Wba1", "log_Way")
    found = {f"org.{name}": 0.4 * rng.normal(size=(N, N)) for name in square}
    found |= {f"org.{name}": rng.normal(size=(N, M)) for name in ("Wzx.weight", "Wbx0", "Wbx1")}
    for name in ("tauy", "taua", "taub0", "taub1"):
        found[f"org.param_dt_{name}"] = np.ones(N) if fixed else rng.normal(size=N)
    if identity:
        found["org.Wr.weight"] = np.eye(N)
    found["org.sigma"] = np.full(N, 0.5)
    found |= {name: rng.uniform(size=N) for name in ("y0", "a0", "b00", "b10")}
    found |= {"fc.weight": rng.normal(size=(10, N)), "fc.bias": rng.normal(size=10)}
    return {name: torch.tensor(value) for name, value in found.items()}


def simulated(state, x, rectified):
    """The published equations, neuron by neuron."""
    w = {name.removeprefix("org."): value.numpy() for name, value in state.items()}
    y, a, b0, b = (w[name].copy() for name in ("y0", "a0", "b00", "b10"))
    W = np.minimum(np.exp(w["log_Way"]), 1)

    def logistic(v):
        return 1 / (1 + np.exp(-v))

    def rate(name, maximum):
        return MAXIMA[maximum] * logistic(w[f"param_dt_{name}"])

    for pixel in x:
        before = y, a, b0, b
        y, a, b0, b = (np.empty(N) for _ in range(4))
        for i in range(N):
            oy, oa, ob0, ob = before
            recurred = w["Wr.weight"][i] @ oy
            of_rates = oy
            if rectified:
                recurred, of_rates = max(recurred, 0), np.maximum(oy, 0)
            drive = max(w["Wzx.weight"][i] @ pixel, 0)
            pool = sum(W[i, j] * of_rates[j] ** 2 * oa[j] for j in range(N))
            gates = [
                logistic(w[f"Wbx{k}"][i] @ pixel + w[f"Wby{k}"][i] @ oy + w[f"Wba{k}"][i] @ oa)
                for k in (0, 1)
            ]
            dy = -oy[i] + ob[i] * drive + (1 - np.sqrt(oa[i])) * recurred
            y[i] = oy[i] + rate("tauy", "dt_tau_max_y")[i] * dy
            da = -oa[i] + w["sigma"][i] ** 2 * ob0[i] ** 2 + pool
            a[i] = oa[i] + rate("taua", "dt_tau_max_a")[i] * da
            b0[i] = ob0[i] + rate("taub0", "dt_tau_max_b")[i] * (gates[0] - ob0[i])
            b[i] = ob[i] + rate("taub1", "dt_tau_max_b")[i] * (gates[1] - ob[i])
    return y, a, b0, b


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(
    ("identity", "fixed"), [(False, False), (True, True)], ids=["learned", "fixed"]
)
def test_a_network_for_sequences(rectified, identity, fixed):
    state = network(identity=identity, fixed=fixed)
    checkpoint = {"state_dict": state, "hyper_parameters": {"kwargs_dict": MAXIMA}}
    layer = ORGaNICs.from_authors(checkpoint, batch_first=True, rectified=rectified)
    x = np.random.default_rng(1).normal(size=(2, STEPS, M))
    with torch.no_grad():
        outputs, final = layer(torch.tensor(x))
    for i in range(2):
        want = simulated(state, x[i], rectified)
        np.testing.assert_allclose(outputs[i, -1], want[0], rtol=1e-10, atol=1e-10)
        for got, part in zip(final, want, strict=True):
            np.testing.assert_allclose(got[0, i], part, rtol=1e-10, atol=1e-10)
    alone = ORGaNICs.from_authors(state, batch_first=True, rectified=rectified, **OURS)
    assert alone.options() == layer.options()
    assert {name: tuple(value.shape) for name, value in alone.state_dict().items()} == {
        name: tuple(value.shape) for name, value in layer.state_dict().items()
    }
    kinds = ("identity", "fixed") if identity else ("free", "learned")
    assert (layer.options()["recurrent"], layer.options()["time_constants"]) == kinds
    # what they do not say is as in their code
    theirs = ORGaNICs.from_authors({"state_dict": state, "hyper_parameters": {"kwargs_dict": {}}})
    assert theirs.options()["dt_tau_max_gates"] == 0.1


def at_rest(seed, m, n, prefix):
    rng = np.random.default_rng(seed)
    found = {"Wzx": rng.normal(size=(n, m)), "Wbx": rng.normal(size=(n, m)), "Wr.weight": np.eye(n)}
    found |= {"log_Way": rng.uniform(-1, 1, (n, n)), "b0": rng.normal(size=n)}
    found |= {"sigma": np.array(0.7), "identity_matrix": np.eye(n)}
    return {prefix + name: torch.tensor(value) for name, value in found.items()}


def test_a_network_for_images():
    state = at_rest(0, 5, 6, "org1.") | at_rest(1, 6, 4, "org2.")
    layers = [Normalization.from_authors(state, prefix) for prefix in ("org1.", "org2.")]
    x = np.random.default_rng(2).uniform(size=5)
    with torch.no_grad():
        got = layers[1](layers[0](torch.tensor(x)))
    for prefix in ("org1.", "org2."):
        w = {name: state[prefix + name].numpy() for name in ("Wzx", "Wbx", "log_Way", "b0")}
        z = w["Wzx"] @ x
        d = z / np.sqrt(z @ z) / (1 + np.exp(-w["Wbx"] @ x))
        pool = [(np.exp(row) * d**2).sum() for row in w["log_Way"]]
        c = (0.7 / (1 + np.exp(-w["b0"]))) ** 2
        x = np.where(d > 0, d**2 / (c + pool), 0)
    np.testing.assert_allclose(got, x, rtol=1e-9)


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_refused():
    state = network()
    hyper = {"hyper_parameters": {"kwargs_dict": MAXIMA}}
    for change, message in [
        ({"org.Wbx1": None}, "`checkpoint` must have org.Wbx1, as the layout of the authors'"),
        ({"y0": None}, "`checkpoint` must have y0, as the layout"),
        ({"org.bias": torch.zeros(3)}, "`checkpoint` must not have org.bias: not the layout"),
        ({"org.sigma": torch.arange(16.0)}, "`checkpoint` must have one sigma for all neurons"),
        ({"org.Wbx1": torch.zeros(3, 3)}, "the weights do not fit the layer's options"),
        ({"y0": 1.0}, "`checkpoint` must be what `torch.load` gives for a checkpoint of"),
    ]:
        changed = {name: value for name, value in (state | change).items() if value is not None}
        with pytest.raises(ValueError, match=message):
            ORGaNICs.from_authors({"state_dict": changed, **hyper})
    with pytest.raises(
        ValueError, match=r"`dt_tau_max_y` must be given for a `checkpoint` without"
    ):
        ORGaNICs.from_authors(state)
    with pytest.raises(ValueError, match="`checkpoint` must be what `torch.load` gives"):
        ORGaNICs.from_authors([state])
    learned = {"org1.Wr.parametrizations.weight.original": torch.eye(6)}
    with pytest.raises(ValueError, match="`checkpoint` has learned recurrent weights in org1.Wr"):
        Normalization.from_authors(at_rest(0, 5, 6, "org1.") | learned)
