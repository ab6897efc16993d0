"""The library without JAX, called by addresses of NumPy's arrays: equal to the plain scan."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import VARIANTS, close, needs_native, problem, reference

from organics.kernels import library
from organics.kernels.equations import Weights

OPTIONS = st.sampled_from(VARIANTS)


def of(*arrays):
    """Where the arrays begin; 0 for one that is not given."""
    return [0 if array is None else array.ctypes.data for array in arrays]


def pulled_back(options, arrays, cotangents, lengths, *, sequence, segment, keep, threads):
    """As `test_kernels.pulled_back`."""
    weights, x, state = arrays
    cell = options.cell(weights)
    identity = weights.recurrent is None
    parameters = [np.ascontiguousarray(a) for a in weights[:6]]
    W_r, W, gates, input_, rates, offset = parameters
    vectors = np.concatenate([rates, offset[None]])
    x, state, d_final, d_outputs = map(np.ascontiguousarray, (x, state, *cotangents))
    (steps, batch, m), H = x.shape, offset.shape[0]
    empty = lambda *shape: np.full(shape, np.nan, x.dtype)  # noqa: E731
    final, outputs = np.empty_like(state), empty(steps, batch, H) if sequence else None
    segment = min(segment, steps)
    kept = empty(-(-steps // segment), batch, 4 * H)
    products = empty(steps, batch, cell.kept * H) if keep else None
    lengths = None if lengths is None else lengths.astype(np.int32)
    sizes = library.Sizes(x.dtype == np.float64, steps, batch, H, m, segment, threads)
    given = library.Addresses(*of(None if identity else W_r, W, gates, input_, vectors))
    library.forward(
        cell, sizes, given,
        library.ForwardArrays(*of(x, state, lengths, final, kept, products, outputs)),
    )  # fmt: skip
    if lengths is not None and sequence:
        ended = np.arange(steps)[:, None] >= lengths
        outputs[ended], d_outputs[ended] = 0, 0
    d_weights = [None if identity else np.empty_like(W_r), *map(np.empty_like, parameters[1:4]),
                 np.empty_like(vectors)]  # fmt: skip
    d_x, d_state = np.empty_like(x), np.empty_like(state)
    library.backward(
        cell, sizes, given,
        library.BackwardArrays(*of(x, kept, products, lengths, d_final,
                                   d_outputs if sequence else None, d_x, d_state)),
        library.Addresses(*of(*d_weights)),
    )  # fmt: skip
    *rest, d_vectors = d_weights
    return (final, outputs), (Weights(*rest, d_vectors[:4], d_vectors[4]), d_x, d_state)


@needs_native
@pytest.mark.rounding
@given(
    options=OPTIONS,
    seed=st.integers(0, 2**32 - 1),
    H=st.sampled_from([16, 32, 64]),
    m=st.sampled_from([1, 3, 28]),
    steps=st.sampled_from([1, 8, 11, 17]),
    batch=st.sampled_from([1, 5, 70]),
    identity=st.booleans(),
    single=st.booleans(),
    sequence=st.booleans(),
    ending=st.booleans(),
    keep=st.booleans(),
    segment=st.sampled_from([1, 4, 100]),
)
def test_called_by_addresses_it_agrees_with_the_plain_scan(
    options, seed, H, m, steps, batch, identity, single, sequence, ending, keep, segment
):
    dtype = np.float32 if single else np.float64
    drawn, cotangents = problem(seed, H, m, steps, batch, identity=identity, dtype=dtype)
    weights, x, state = jax.tree.map(np.array, drawn)
    arrays = weights, x / dtype(2 * m), state  # small inputs, so that nothing overflows
    lengths = np.random.default_rng(seed).integers(1, steps + 1, batch) if ending else None
    got = pulled_back(
        options, arrays, jax.tree.map(np.array, cotangents), lengths,
        sequence=sequence, segment=segment, keep=keep, threads=seed % 3,
    )  # fmt: skip
    close(got, reference(options, arrays, cotangents, lengths, sequence=sequence), dtype)


@needs_native
@pytest.mark.parametrize(
    "cell, changed, message",
    [
        (library.Cell("cubic", 1, 1), {}, "there is no cell `cubic`"),
        (library.gated_cell(False, True, False, False), {"hidden": 20}, "a multiple of 16"),
        (library.gated_cell(False, True, False, False), {"batch": 0}, "at least one step, sample"),
        (library.gated_cell(False, True, False, False), {"segment": 0}, "`segment` must be"),
    ],
)
def test_what_cannot_be_is_refused_before_any_array_is_touched(cell, changed, message):
    sizes = library.Sizes(True, 3, 2, 16, 1, 1, 1)._replace(**changed)
    nowhere = library.Addresses(0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match=message):
        library.forward(cell, sizes, nowhere, library.ForwardArrays(*[0] * 7))
    with pytest.raises(ValueError, match=message):
        library.backward(cell, sizes, nowhere, library.BackwardArrays(*[0] * 8), nowhere)


def test_without_the_library_a_call_says_why(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: library.Loaded(None, None, "it was not built"))
    nowhere = library.Addresses(0, 0, 0, 0, 0)
    cell, sizes = library.gated_cell(True, True, False, False), library.Sizes(*[1] * 7)
    with pytest.raises(ValueError, match="no native kernel: it was not built"):
        library.forward(cell, sizes, nowhere, library.ForwardArrays(*[0] * 7))


def test_it_does_not_need_jax():
    code = (
        "import sys, organics.kernels.library as library\n"
        "library.load()\n"
        "assert 'jax' not in sys.modules and 'jaxlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
