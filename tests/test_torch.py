"""The layers of PyTorch are those of JAX: values, gradients, files. Where PyTorch is installed."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import safetensors.torch  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence  # noqa: E402

import organics.torch as layers  # noqa: E402
from organics import nn  # noqa: E402
from organics.kernels import library  # noqa: E402
from organics.training.checkpoint import load_tree, save_tree  # noqa: E402

LARGE = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.3, "dt_tau_max_gates": 0.7}
KINDS = [
    {},
    {"recurrent": "identity", "drive": "unit", "layers": 2},
    {"recurrent": "bounded", "rectification": "outside", "memory": "less"},
    {"recurrent": "semidefinite", "rectified": False, "drive": "rectified",
     "time_constants": "fixed"},
    {"time_constants": "modulated", "recurrent": "identity", "drive": "unit", "layers": 2},
    {"time_constants": "modulated-y", "memory": "less"},
    {"recurrent": "orthogonal", "rectified": False, "sigma": 0.1},
]  # fmt: skip
BACKENDS = [
    "scan",
    pytest.param("native", marks=pytest.mark.skipif(library.load().handle is None, reason="none")),
]
backends = pytest.mark.parametrize("backend", BACKENDS)
PRODUCTS = "full", "bfloat16"
LENGTHS = np.array([11, 3, 1, 7, 11])


names = pytest.mark.parametrize(
    "kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())) or "free"
)


def modulated(layer):
    """With weights of the modulation, if there is one, that are not 0."""

    def drawn(cell):
        if cell.modulation is None:
            return cell
        leaves, tree = jax.tree.flatten(cell.modulation)
        moved = [0.3 * jr.normal(jr.key(8), leaf.shape, leaf.dtype) for leaf in leaves]
        return eqx.tree_at(lambda c: c.modulation, cell, jax.tree.unflatten(tree, moved))

    return eqx.tree_at(lambda layer: layer.cells, layer, tuple(map(drawn, layer.cells)))


def of_jax(size=20, dtype=np.float64, **options):
    layer = modulated(nn.ORGaNICs(3, size, key=jr.key(1), dtype=dtype, **LARGE, **options))
    if layer.cells[0].W_r is None:
        return layer
    # away from the orthogonal matrix, whose singular values are all the largest
    moved = layer.cells[0].W_r + 0.3 * jr.normal(jr.key(7), (size, size), dtype)
    return eqx.tree_at(lambda layer: layer.cells[0].W_r, layer, moved)


def numbers(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(w, simple=True, separator="."): leaf for w, leaf in leaves}


def close(got, want, dtype=np.float64):
    want = np.asarray(want)
    got = got.detach().numpy()
    assert got.shape == want.shape and got.dtype == want.dtype
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(got, want, 0, tolerance * (1 + np.max(np.abs(want))))


@eqx.filter_jit
def expected(layer, x, cotangents):
    """Outputs, final state and gradients of JAX's layer."""

    def value(given):
        layer, x = given
        y, state = layer(x, lengths=LENGTHS)
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *state)
        return jnp.sum(y * cotangents) + sum(jnp.sum(jnp.sin(p)) for p in parts), (y, parts)

    return eqx.filter_grad(value, has_aux=True)((layer, x))


@pytest.mark.rounding
@names
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_and_gradients_are_those_of_jax(kind, dtype):
    """With one compiled reference for both backends; of a size that the kernel has to widen."""
    layer = of_jax(dtype=dtype, backend="scan", **kind)
    x, cotangents = numbers(0, 5, 11, 3, dtype=dtype), numbers(1, 5, 11, 20, dtype=dtype)
    (d_layer, d_x), (y, state) = expected(layer, x, cotangents)
    for backend in ("scan", "native") if library.load().handle is not None else ("scan",):
        made = layers.ORGaNICs.from_jax(layer, batch_first=True, backend=backend)
        given = torch.tensor(x, requires_grad=True)
        outputs, final = made(given, lengths=LENGTHS)
        total = (outputs * torch.tensor(cotangents)).sum()
        (total + sum(torch.sin(part).sum() for part in final)).backward()
        close(outputs, y, dtype)
        for got, want in zip(final, state, strict=True):
            close(got, want, dtype)
        close(given.grad, d_x, dtype)
        gradients, want = dict(made.named_parameters()), named(d_layer)
        assert gradients.keys() == {name for name in want if ".start." not in name}
        for name, parameter in gradients.items():
            close(parameter.grad, want[name], dtype)


@backends
def test_products_in_bfloat16_are_those_of_jax(backend):
    """But for a factor now and then that is rounded the other way, as sums are in another order."""
    options = {"dtype": np.float32, "backend": "scan", "time_constants": "modulated"}
    full, rounded = (of_jax(products=kind, **options) for kind in PRODUCTS)
    x = numbers(0, 5, 11, 3, dtype=np.float32)
    cotangents = np.ones((5, 11, 20), np.float32)
    found = [expected(layer, x, cotangents) for layer in (full, rounded)]
    unlike, want = (np.concatenate([np.ravel(y), np.ravel(d_x)]) for (_, d_x), (y, _) in found)
    one = layers.ORGaNICs.from_jax(rounded, batch_first=True, backend=backend)
    assert one.options()["products"] == "bfloat16" == one.to_jax().products
    given = torch.tensor(x, requires_grad=True)
    outputs, final = one(given, lengths=LENGTHS)
    (outputs.sum() + sum(torch.sin(part).sum() for part in final)).backward()
    got = np.concatenate([np.ravel(outputs.detach()), np.ravel(given.grad)])
    rounding = np.linalg.norm(unlike - want)
    assert rounding > 1e-4 * np.linalg.norm(want)
    assert np.linalg.norm(got - want) < rounding / 10
    with pytest.raises(ValueError, match="`products` must be 'full' for numbers of type torch.fl"):
        one.double()(given.double())


def made(backend="auto", **options):
    torch.manual_seed(0)
    options = {**LARGE, "dtype": torch.float64, **options}
    return layers.ORGaNICs(3, 16, backend=backend, **options)


def test_the_initial_values_are_drawn_from_the_same_laws():
    layer, like = made(num_layers=2), nn.ORGaNICs(3, 16, layers=2, key=jr.key(0))
    weights = layer.state_dict()
    assert {n: tuple(w.shape) for n, w in weights.items()} == {
        n: w.shape for n, w in named(like).items()
    }
    assert not torch.equal(weights["cells.0.W_by"], weights["cells.0.W_ba"])
    for name, leaf in named(like).items():
        got, want = weights[name].numpy(), np.asarray(leaf)
        if name.endswith("raw_rates"):  # normal
            assert abs(got.mean()) < 0.5 and 0.7 < got.std() < 1.3
            continue
        spread = np.abs(want).max()  # bounded, or log_W with its long tail
        factor = 4 if name.endswith("log_W") else 1.6
        assert spread / factor <= np.abs(got).max() <= spread * factor, name
    for cell in layer.cells:
        assert torch.linalg.matrix_norm(cell.W_zx, 2).item() == pytest.approx(1)
        np.testing.assert_allclose((cell.W_r.T @ cell.W_r).detach(), np.eye(16), atol=1e-12)
        assert cell.start.y.norm().item() == pytest.approx(1) and (cell.start.b0 == 1).all()
        assert (cell.log_W.diagonal() == 0).all() and (cell.log_W <= 0).all()


@backends
def test_the_conventions_of_lstm(backend):
    """Shapes, states and packed sequences, beside `torch.nn.LSTM` itself."""
    layer, lstm = made(backend, num_layers=2), torch.nn.LSTM(3, 16, 2, dtype=torch.float64)
    x = torch.tensor(numbers(2, 7, 4, 3))
    for given in (x, x[:, 0]):
        (y, state), (other, (h, _)) = layer(given), lstm(given)
        assert y.shape == other.shape and {part.shape for part in state} == {h.shape}
        torch.testing.assert_close(y[-1], state.y[-1])
        torch.testing.assert_close(layer(given, sequence=False)[0], y[-1])
    first = made(backend, num_layers=2, batch_first=True)
    y, state = layer(x)
    torch.testing.assert_close(first(x.transpose(0, 1))[0], y.transpose(0, 1))
    begun, middle = layer(x[:3])
    rest, end = layer(x[3:], middle)
    torch.testing.assert_close(torch.cat([begun, rest]), y)
    torch.testing.assert_close(end, state)
    pieces = [x[:k, i] for i, k in enumerate((3, 7, 2, 5))]
    for h0 in (None, state):
        packed, final = layer(pack_sequence(pieces, enforce_sorted=False), h0)
        outputs, ends = pad_packed_sequence(packed)
        assert ends.tolist() == [3, 7, 2, 5]
        last, _ = layer(pack_sequence(pieces, enforce_sorted=False), h0, sequence=False)
        for i, piece in enumerate(pieces):
            begin = None if h0 is None else layers.State(*(part[:, i] for part in h0))
            want, alone = layer(piece, begin)
            torch.testing.assert_close(outputs[: len(piece), i], want)
            torch.testing.assert_close(last[i], want[-1])
            torch.testing.assert_close(layers.State(*(part[:, i] for part in final)), alone)


@backends
@pytest.mark.parametrize("memory", ["more", "less"])
def test_padding_changes_nothing(backend, memory):
    layer = made(backend, memory=memory)
    x = torch.tensor(numbers(3, 7, 3, 3))
    ends = torch.tensor([7, 2, 4])
    found = []
    for padding in (0.0, torch.nan):
        given = torch.where(torch.arange(7)[:, None, None] < ends[:, None], x, padding)
        given.requires_grad_()
        layer.zero_grad()
        y, state = layer(given, lengths=ends)
        (y.square().sum() + state.a.sum()).backward()
        assert (y[2:, 1] == 0).all() and (given.grad[2:, 1] == 0).all()
        found.append([y, *state, given.grad, *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


@backends
@pytest.mark.parametrize("kind", ["modulated", "modulated-together", "modulated-y"])
def test_without_modulation_it_is_the_layer_that_learns_rates(backend, kind):
    """Bit by bit; and gradients reach the modulation from there."""
    learned, moving = made(backend), made(backend, time_constants=kind)
    state = moving.state_dict() | learned.state_dict()
    moving.load_state_dict(state)
    x = torch.tensor(numbers(9, 12, 2, 3))
    (want, _), (got, _) = learned(x), moving(x)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    got.square().sum().backward()
    for weight in moving.cells[0].modulation.parameters():
        assert weight.grad is not None and torch.all(weight == 0)
        assert (weight.grad != 0).any() and torch.isfinite(weight.grad).all()
    fresh = made(backend, time_constants=kind)
    fresh.reset_parameters()
    assert all(torch.all(weight == 0) for weight in fresh.cells[0].modulation.parameters())


@pytest.mark.parametrize("kind", ["learned", "modulated"])
def test_derivatives_of_gradients_agree_with_finite_differences(kind):
    """With the kernel's gradients as the function, and those of the plain equations."""
    layer = made(memory="less", time_constants=kind)
    with torch.no_grad():
        layer.cells[0].log_W -= 0.1  # away from 0, where it is clamped
    x = torch.tensor(numbers(4, 5, 2, 3), requires_grad=True)
    parameters = [x, *layer.parameters()]
    along = [torch.tensor(numbers(5, *p.shape)) for p in parameters]

    def slope(create_graph):
        y, state = layer(x)
        total = y.square().sum() + state.a.sum()
        found = torch.autograd.grad(total, parameters, create_graph=create_graph)
        return sum((g * v).sum() for g, v in zip(found, along, strict=True))

    second = torch.autograd.grad(slope(True), parameters)
    got = sum((g * v).sum() for g, v in zip(second, along, strict=True)).item()
    values = []
    for h in (1e-6, -1e-6):
        with torch.no_grad():
            for p, v in zip(parameters, along, strict=True):
                p += h * v
        values.append(slope(False).item())
        with torch.no_grad():
            for p, v in zip(parameters, along, strict=True):
                p -= h * v
    assert got == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("size", [16, 24])
def test_gradients_that_can_be_differentiated_count_no_path_twice(size):
    """Where the state that a call begins with depends on the weights and on the input."""
    layer = layers.ORGaNICs(3, size, dtype=torch.float64, **LARGE)
    x = torch.tensor(numbers(4, 6, 2, 3), requires_grad=True)
    _, state = layer(x[:3])
    state = state._replace(y=state.y + x[-1].sum(-1, keepdim=True))
    total = layer(x[3:], state)[0].square().sum()
    parameters = [x, *layer.parameters()]
    plain = torch.autograd.grad(total, parameters, retain_graph=True)
    again = torch.autograd.grad(total, parameters, create_graph=True)
    for got, want in zip(again, plain, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@backends
def test_under_autocast_products_of_weights_are_not_rounded_for_the_kernel(backend):
    torch.manual_seed(0)
    layer = layers.ORGaNICs(3, 16, recurrent="semidefinite", backend=backend, **LARGE)
    x = torch.tensor(numbers(6, 9, 4, 3, dtype=np.float32))
    y = layer(x)[0]
    gradient = torch.autograd.grad(y.square().sum(), layer.cells[0].W_r)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)[0]
    again = torch.autograd.grad(low.square().sum(), layer.cells[0].W_r)[0]
    within = {"rtol": 0, "atol": 0} if backend == "native" else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(low, y, **within)
    torch.testing.assert_close(again, gradient, **within)


@pytest.mark.parametrize("backend", ["auto", "scan"])
def test_weights_of_two_types_are_refused(backend):
    """Their memory must not be read as that of one type."""
    layer = layers.ORGaNICs(3, 16, backend=backend)
    layer.cells[0].W_r.data = layer.cells[0].W_r.data.double()
    with pytest.raises(RuntimeError, match="dtype|same"):
        layer(torch.ones(4, 2, 3))
    if library.load().handle is not None and backend == "auto":
        layer.backend = "native"
        with pytest.raises(ValueError, match="`backend` must not be 'native' for tensors"):
            layer(torch.ones(4, 2, 3))


def test_the_search_for_rest_is_not_rounded_under_autocast():
    torch.manual_seed(0)
    layer = layers.Normalization(10, 8, recurrent="bounded")
    with torch.no_grad():
        layer.W_r.copy_(0.9 * torch.nn.init.orthogonal_(torch.empty(8, 8)))
    x = torch.tensor(numbers(6, 40, 10, dtype=np.float32))
    want = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert want.isfinite().all()
    torch.testing.assert_close(found, want, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "recurrent, rectified",
    [("free", True), ("bounded", True), ("semidefinite", True), ("orthogonal", False)],
)
def test_layers_of_fewer_bits_can_be_made_and_kept(dtype, recurrent, rectified, tmp_path):
    torch.manual_seed(1)
    layer = layers.ORGaNICs(3, 8, recurrent=recurrent, rectified=rectified, dtype=dtype, **LARGE)
    x = torch.tensor(numbers(6, 5, 2, 3, dtype=np.float32))
    layer.save(tmp_path / "a.safetensors")
    again = layers.ORGaNICs.load(tmp_path / "a.safetensors")
    y = layer(x.to(dtype))[0]
    torch.testing.assert_close(again(x.to(dtype))[0], y, rtol=0, atol=0)
    full = layers.ORGaNICs.load(tmp_path / "a.safetensors", dtype=torch.float32)
    torch.testing.assert_close(y.float(), full(x)[0], rtol=0.1, atol=0.05)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # PyTorch's own
def test_derivatives_forward_are_those_backward():
    layer = layers.ORGaNICs(3, 16, dtype=torch.float64, **LARGE)
    x, v = (torch.tensor(numbers(seed, 5, 2, 3)) for seed in (4, 5))
    with forward_ad.dual_level():
        y = layer(forward_ad.make_dual(x, v))[0]
        slope = forward_ad.unpack_dual(y).tangent.sum()
    gradient = torch.autograd.grad(layer(x.requires_grad_())[0].sum(), x)[0]
    torch.testing.assert_close(slope, (gradient * v).sum(), rtol=1e-9, atol=1e-12)


def test_a_view_with_the_sign_turned_is_an_input_as_others_are():
    layer = layers.ORGaNICs(3, 16, dtype=torch.float64, **LARGE)
    turned = torch.complex(torch.zeros(4, 2, 3), torch.ones(4, 2, 3)).to(torch.complex128).conj()
    assert turned.imag.is_neg()
    torch.testing.assert_close(layer(turned.imag)[0], layer(turned.imag.clone())[0])
    layer(torch.ones_like(turned.imag))[0].backward(turned.imag[:, :, :1].expand(-1, -1, 16))


@pytest.mark.parametrize("backend", ["auto", "scan"])
def test_a_unit_drive_is_at_most_1_also_where_the_weights_take_most_away(backend):
    torch.manual_seed(0)
    layer = layers.ORGaNICs(64, 8, drive="unit", backend=backend)
    cell = layer.cells[0]
    U, S, V = torch.linalg.svd(cell.W_zx.detach(), full_matrices=True)
    del U, S
    x = 1e4 * V[-1] + 3.0 * V[0]  # of the first, rounding leaves a thousandth
    drive = cell.W_zx @ cell.inputs(x[None])[0, 64:]
    assert 0.9 < torch.linalg.vector_norm(drive) < 1.01


def test_a_unit_drive_is_at_most_1_also_where_columns_are_nearly_equal():
    layer = layers.ORGaNICs(2, 8, drive="unit")
    w, e = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 2)))[0].T
    W = torch.tensor(np.stack([w + 1e-5 * e, w - 1e-5 * e], axis=1) / np.sqrt(2)).float()
    with torch.no_grad():
        layer.cells[0].W_zx.copy_(W)
    bounded = layer.cells[0].inputs(torch.tensor([[1e6, -1e6]]))[0, 2:]
    assert 0.9 < torch.linalg.vector_norm(W.double() @ bounded.double()) < 1.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_search_in_few_bits_ends_where_that_in_many_does(dtype):
    torch.manual_seed(1)
    layer = layers.Normalization(4, 6, recurrent="bounded", dtype=dtype)
    x = torch.randn(5, 4).to(dtype)
    rates = layer(x)
    rates.sum().backward()
    assert rates.dtype == dtype and layer.W_r.grad.isfinite().all()
    wide = layer.double()(x.double())
    torch.testing.assert_close(rates.double(), wide, rtol=0.1, atol=0.02)


@backends
@pytest.mark.usefixtures("without_type_checks")
def test_compiled_and_under_autocast(backend):
    """By `torch.compile` as one graph; in lower precision to within that."""
    layer = made(backend, dtype=torch.float32)
    x = torch.tensor(numbers(6, 4, 2, 3, dtype=np.float32))
    y, _ = layer(x)
    y.square().sum().backward()
    gradient = layer.cells[0].W_by.grad.clone()
    layer.zero_grad()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    again, _ = compiled(x)
    again.square().sum().backward()
    torch.testing.assert_close(again, y)
    torch.testing.assert_close(layer.cells[0].W_by.grad, gradient)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, _ = layer(x.bfloat16())
        low.sum().backward()
    torch.testing.assert_close(low, y, atol=0.02, rtol=0.02)
    assert low.dtype == torch.float32
    if backend == "native":
        with pytest.raises(ValueError, match="`backend` must not be 'native' for tensors of cpu"):
            layer.bfloat16()(x.bfloat16())


@pytest.mark.parametrize(
    "options", [{}, {"recurrent": "bounded", "time_constants": "modulated", "drive": "unit"}]
)
def test_transformations_of_functions(options):
    """An ensemble, and gradients of each sequence, are those of one after another."""
    torch.manual_seed(0)
    ensemble = [made(**options) for _ in range(2)]
    layer = ensemble[0]
    x = torch.from_numpy(numbers(3, 4, 6, 3))
    parameters, buffers = torch.func.stack_module_state(ensemble)

    def called(parameters, buffers):
        return torch.func.functional_call(layer, (parameters, buffers), (x,))[0]

    found = torch.func.vmap(called)(parameters, buffers)
    for got, one in zip(found, ensemble, strict=True):
        torch.testing.assert_close(got, one(x)[0], rtol=1e-9, atol=1e-12)

    def loss(parameters, sequence):
        return torch.func.functional_call(layer, parameters, (sequence,))[0].square().sum()

    own = {name: p.detach() for name, p in layer.named_parameters()}
    whole = torch.func.grad(loss)(own, x)  # of a batch that is not transformed
    layer.zero_grad()
    layer(x)[0].square().sum().backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(whole[name], p.grad, rtol=1e-8, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(loss), (None, 1))(own, x)
    for i in range(x.shape[1]):
        layer.zero_grad()
        layer(x[:, i])[0].square().sum().backward()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(each[name][i], p.grad, rtol=1e-8, atol=1e-12)
    if library.load().handle is not None:
        native = made("native", **options)
        with pytest.raises(ValueError, match="not within the transformations of `torch.func`"):
            torch.func.vmap(lambda a: native(a)[0])(x)


class Computing(torch.utils.data.Dataset):
    """Items that a worker process computes with the layer."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 4

    def __getitem__(self, i):
        x = torch.full((40, 3), float(i), dtype=torch.float64, requires_grad=True)
        y = self.layer(x[:, None].expand(-1, 16, -1))[0]
        y.sum().backward()
        return x.grad


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_worker_processes_compute_beside_it():
    """Forked while the layer has run in this process, with several threads."""
    layer = made()
    data = Computing(layer)
    want = torch.stack([data[i] for i in range(4)])
    loader = torch.utils.data.DataLoader(
        data, batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    torch.testing.assert_close(next(iter(loader)), want)


@names
def test_to_jax_and_to_files_and_back(kind, tmp_path):
    layer = of_jax(**kind)
    there = layers.ORGaNICs.from_jax(layer)
    back = there.to_jax()
    assert jax.tree.structure(back) == jax.tree.structure(layer)
    assert eqx.tree_equal(back, layer)
    file = tmp_path / "layer.safetensors"
    there.save(file)
    loaded = layers.ORGaNICs.load(file, batch_first=True)
    assert loaded.options() == there.options() | {"batch_first": True}
    assert eqx.tree_equal(loaded.to_jax(), layer)
    assert eqx.tree_equal(load_tree(file, layer)[0], layer)  # read by JAX
    save_tree(file, layer)  # and written by it
    state = safetensors.torch.load_file(file)
    torch.testing.assert_close(state, dict(there.state_dict()), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"layer.safetensors does not hold a layer with its"):
        layers.ORGaNICs.load(file)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gain": 0.5, "pool": "bounded", "rectified": True, "sigma": 0.3},
        {"recurrent": "bounded"},
        {"recurrent": "bounded", "rectified": True, "pool": "bounded"},
    ],
    ids=str,
)
def test_normalization_is_that_of_jax(options, tmp_path):
    layer = nn.Normalization(5, 6, key=jr.key(3), **options)
    if layer.W_r is not None:
        moved = 0.6 * layer.W_r + 0.3 * jr.normal(jr.key(4), (6, 6))
        layer = eqx.tree_at(lambda layer: layer.W_r, layer, moved)
    x, cotangents = numbers(8, 9, 5), numbers(9, 9, 6)

    @eqx.filter_jit
    @lambda value: eqx.filter_value_and_grad(value, has_aux=True)
    def want(given):
        layer, x = given
        rates = jax.vmap(layer)(x)
        return jnp.sum(rates * cotangents), rates

    (_, rates), (d_layer, d_x) = want((layer, x))
    assert np.all(np.isfinite(rates))
    there = layers.Normalization.from_jax(layer)
    given = torch.tensor(x, requires_grad=True)
    got = there(given)
    (got * torch.tensor(cotangents)).sum().backward()
    np.testing.assert_allclose(got.detach(), rates, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(given.grad, d_x, rtol=1e-6, atol=1e-8)
    for name, parameter in there.named_parameters():
        np.testing.assert_allclose(parameter.grad, named(d_layer)[name], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(there(given[None, 0]), got[:1])
    there.save(tmp_path / "layer.safetensors")
    assert eqx.tree_equal(layers.Normalization.load(tmp_path / "layer.safetensors").to_jax(), layer)
    assert torch.autograd.gradgradcheck(there, given[:2].detach().requires_grad_())


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_refused(tmp_path):
    layer, x = made(), torch.zeros(4, 2, 3, dtype=torch.float64)
    for options, message in [
        ({"recurrent": "none"}, "`recurrent` must be one of"),
        ({"time_constants": "moving"}, "`time_constants` must be one of"),
        ({"num_layers": 0}, "`num_layers` must be at least 1, not 0"),
        ({"dt_tau_max_y": 2.0}, r"`dt_tau_max_y` must be in \(0, 1\], not 2.0"),
        ({"sigma": 0.0}, "`sigma` must be > 0"),
        ({"backend": "cuda"}, "`backend` must be one of"),
        ({"sigma": 1e-30}, "`sigma` must have a square that float32 can hold, not 1e-30"),
        ({"sigma": 1e3, "dtype": torch.float16}, "a square that float16 can hold, not 1000.0"),
        ({"dtype": torch.int32}, "`dtype` must be a floating-point type of torch, not torch.int32"),
        ({"dtype": "float32"}, "`dtype` must be a floating-point type of torch, not 'float32'"),
    ]:
        with pytest.raises(ValueError, match=message):
            layers.ORGaNICs(3, 16, **options)
    for given, options, message in [
        (
            x[..., :2],
            {},
            r"`input` must have shape \(time, batch, 3\) or \(time, 3\), not \(4, 2, 2",
        ),
        (np.ones((4, 2, 3)), {}, "`input` must be a tensor, not ndarray"),
        (x.float(), {}, "`input` must be of the layer's type torch.float64, not torch.float32"),
        (x * torch.nan, {}, "`input` must be finite"),
        (x, {"lengths": [4, 5]}, r"`lengths` must be from 1 to 4, as `input` has, not \[4, 5\]"),
        (x, {"lengths": [4.0, 5.0]}, "`lengths` must be whole numbers"),
        (x, {"lengths": "abc"}, "`lengths` must be whole numbers, not 'abc'"),
        (x, {"lengths": [None, 3]}, r"`lengths` must be whole numbers, not \[None, 3\]"),
        (x, {"sequence": "no"}, "`sequence` must be"),
        (x, {"h0": (None,) * 4}, "`h0.y` must be a tensor, not NoneType"),
        (x, {"h0": [x] * 4}, r"`h0` must be a `State`, four tensors .*, not of type list"),
        (x, {"lengths": [4]}, r"`lengths` must have shape \(2,\), not \(1,\)"),
        (x, {"h0": (x, x)}, "`h0` must be a `State`"),
        (x, {"h0": layers.State(x, x, x, x)}, r"`h0.y` must have shape \(1, 2, 16\)"),
        (
            pack_sequence([x[:2, 0], x[:, 1]], enforce_sorted=False),
            {"h0": layers.State(*[torch.ones(1, 3, 16, dtype=x.dtype)] * 4)},  # of three sequences
            r"`h0.y` must have shape \(1, 2, 16\)",
        ),
        (pack_sequence([x[:, 0]]), {"lengths": [4]}, "with a `PackedSequence`"),
        (pack_sequence([x[:, 0, :2]]), {}, "`input` must have 3 numbers a step, not 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(given, **options)
    with pytest.raises(ValueError, match=r"`input` must have shape \(\.\.\., 5\), not \(4, 2, 3\)"):
        layers.Normalization(5, 6)(x)
    layer.save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="^`backend` must be one of"):
        layers.ORGaNICs.load(tmp_path / "a.safetensors", backend="bogus")
    for sigma, dtype in ((1e-30, None), (1e3, torch.float16)):
        with pytest.raises(ValueError, match="`sigma` must have a square that float"):
            layers.Normalization(5, 6, sigma=sigma, dtype=dtype)
    wrong: Any = [1.0] * 5
    with pytest.raises(ValueError, match="`input` must be a tensor, not list"):
        layers.Normalization(5, 6)(wrong)
    with pytest.raises(ValueError, match="`gain` must be 'input' or a number in"):
        layers.Normalization(5, 6, gain=2.0)
    with pytest.raises(ValueError, match=r"`layer` must be an `organics.nn.ORGaNICs`"):
        layers.ORGaNICs.from_jax(nn.Normalization(5, 6, key=jr.key(0)))


def test_lengths_of_a_narrow_type_are_those_of_a_wide_one():
    layer, x = layers.ORGaNICs(2, 4), torch.ones(300, 2, 2)
    wanted = layer(x, lengths=torch.tensor([200, 100]))[0]
    found = layer(x, lengths=torch.tensor([200, 100], dtype=torch.uint8))[0]
    torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="`lengths` must be from 1 to 300"):
        layer(x, lengths=torch.tensor([0, 100], dtype=torch.uint8))


def test_jax_is_not_imported():
    code = (
        "import sys, torch, organics.torch as layers\n"
        "layer = layers.ORGaNICs(2, 16)\n"
        "layer(torch.zeros(3, 2, 2))[0].sum().backward()\n"
        "layers.Normalization(2, 3)(torch.ones(2))\n"
        "assert not {'jax', 'equinox', 'jaxtyping'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("without_type_checks")  # as for a reader
def test_the_tutorial_shows_what_it_says(capsys):
    """It is a page of the documentation, which may be made where PyTorch is not installed."""
    program = Path(__file__).parents[1] / "docs" / "tutorials" / "pytorch.py"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other where other tests run, too
    try:
        made = runpy.run_path(str(program))
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out.splitlines()
    rights = [float(line.split(" weights, ")[1].split("%")[0]) for line in said[:2]]
    assert len(rights) == 2 and min(rights) > 90
    assert said[2:] == ["torch.Size([1, 297, 32]) True", "True True", "True"]
    assert made["certificate"].holds
