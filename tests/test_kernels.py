"""The recurrence in three ways: values and gradients agree for all options."""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from organics.kernels import library, native, recurrence
from organics.kernels.equations import Modulation, Options, Weights

VARIANTS = [
    Options(rectified, after, drive)
    for rectified, after, drive in itertools.product([True, False], repeat=3)
]

needs_native = pytest.mark.skipif(
    native.unavailable() is not None, reason=f"no native kernel here: {native.unavailable()}"
)
backends = pytest.mark.parametrize("backend", ["scan", pytest.param("native", marks=needs_native)])


def problem(seed, H, m, steps, batch, *, identity=False, dtype=np.float64):
    """Random weights, sequence and state, with some `a` and `y` of either sign."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    uniform = lambda low, high, *shape: rng.uniform(low, high, shape).astype(dtype)  # noqa: E731
    weights = Weights(
        recurrent=None if identity else normal(H, H) / dtype(H) ** dtype(0.5),
        normalization=uniform(0, 1, H, H) / dtype(H),
        gates=normal(2 * H, 2 * H) / dtype(H) ** dtype(0.5),
        input=normal(3 * H, m),
        rates=uniform(0.05, 0.9, 4, H),
        offset=uniform(0.2, 1, H),
    )
    state = np.concatenate(
        [normal(batch, H), uniform(-0.1, 1, batch, H), uniform(0, 1, batch, 2 * H)], axis=1
    )
    x = normal(steps, batch, m)
    arrays = weights, x, state
    # not by `jnp.asarray`, which compiles a program for every shape
    return jax.device_put((arrays, (normal(batch, 4 * H), normal(steps, batch, H))))


def keeping(keep):
    """Has the native kernels keep the products of every step, or not; `None` as they do else."""
    if keep is None:
        return contextlib.nullcontext()
    return mock.patch.object(native, "run", partial(native.run, keep_products=keep))


@partial(jax.jit, static_argnames=("options", "sequence", "backend", "memory", "keep"))
def pulled_back(
    options, arrays, cotangents, lengths=None, *, sequence, backend, memory="more", keep=None
):
    """Final state, outputs, and the gradients of their product with the cotangents.

    `keep` says whether the native kernel keeps the products of every step, at any size.
    """
    d_final, d_outputs = cotangents

    def value(weights, x, state):
        final, outputs = recurrence.run(
            options, weights, x, state, lengths, sequence=sequence, backend=backend, memory=memory
        )
        total = jnp.sum(final * d_final)
        if sequence:
            total = total + jnp.sum(outputs * d_outputs)
        return total, (final, outputs)

    with keeping(keep):
        gradients, results = jax.grad(value, argnums=(0, 1, 2), has_aux=True)(*arrays)
    return results, gradients


MOST = {"H": 64, "m": 28, "steps": 18, "batch": 70}  # what `reference` has room for


def layout(H, m, steps, batch):
    """Blocks and their size, by axis, of every weight, the input, the state and the outputs."""
    return (
        *[((1, H), (1, H))] * 2, ((2, H), (2, H)), ((3, H), (1, m)), ((1, 4), (1, H)), ((1, H),),
        ((1, steps), (1, batch), (1, m)), ((1, batch), (4, H)),
        ((1, steps), (1, batch), (1, H)),
    )  # fmt: skip


def resized(array, axes):
    """`array` with each block along each axis cut, or filled with zeros, to its new size."""
    blocks, sizes = zip(*axes, strict=True)
    parts = lambda lengths: [n for pair in zip(blocks, lengths, strict=True) for n in pair]  # noqa: E731
    old = np.asarray(array).reshape(parts(np.floor_divide(array.shape, blocks)))
    new = np.zeros(parts(sizes), old.dtype)
    both = tuple(slice(min(pair)) for pair in zip(old.shape, new.shape, strict=True))
    new[both] = old[both]
    return new.reshape(np.multiply(blocks, sizes))


def reference(options, arrays, cotangents, lengths=None, *, sequence):
    """The results of `pulled_back` by the scan in double precision, in one program for all sizes.

    Missing neurons, inputs and samples are zeros and stay so; missing steps come after the ends of
    the sequences.
    """
    weights, x, state = arrays
    d_final, d_outputs = cotangents
    steps, batch, m = x.shape
    H = weights.offset.shape[0]
    identity = weights.recurrent is None
    filled = weights._replace(recurrent=np.eye(H)) if identity else weights
    given = [*filled[:6], x, state, d_outputs if sequence else np.zeros((steps, batch, H))]
    wide = [
        resized(array, axes).astype(float)
        for array, axes in zip(given, layout(**MOST), strict=True)
    ]
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    (final, outputs), (d_weights, d_x, d_state) = pulled_back(
        options,
        (Weights(*wide[:6]), wide[6], wide[7]),
        (resized(d_final, layout(**MOST)[7]).astype(float), wide[8]),
        resized(lengths.astype(np.int32), ((1, MOST["batch"]),)),
        sequence=True,
        backend="scan",
    )
    narrow = layout(H, m, steps, batch)
    cut = lambda array, axes: resized(array, axes).astype(x.dtype)  # noqa: E731
    all_of_them = [*d_weights[:6], d_x, d_state, outputs]
    *d_weights, d_x, d_state, outputs = map(cut, all_of_them, narrow)
    d_weights = Weights(*d_weights)
    d_weights = d_weights._replace(recurrent=None) if identity else d_weights
    results = cut(final, narrow[7]), outputs if sequence else None
    return results, (d_weights, d_x, d_state)


def close(got, want, dtype=np.float64):
    tolerance = 1e-10 if dtype == np.float64 else 2e-4
    flat_got, tree_got = jax.tree.flatten(got)
    flat_want, tree_want = jax.tree.flatten(want)
    assert tree_got == tree_want
    for g, w in zip(flat_got, flat_want, strict=True):
        assert g.dtype == w.dtype
        scale = 1 + np.max(np.abs(w))
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * scale)


@needs_native
@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: f"{o.rectified}-{o.rectified_after}")
def test_native_agrees_with_the_plain_scan(options):
    free, identity = (problem(0, 16, 2, 11, 3, identity=identity) for identity in (False, True))

    @jax.jit
    def all_ways(free, identity):
        return [
            pulled_back(options, *given, sequence=sequence, backend="native", keep=keep)
            for given in (free, identity)
            for sequence in (False, True)
            for keep in (False, True)
        ]

    want = [
        reference(options, *given, sequence=sequence)
        for given in (free, identity)
        for sequence in (False, True)
    ]
    close(all_ways(free, identity), [one for one in want for _ in (False, True)])


@needs_native
@given(
    seed=st.integers(0, 2**32 - 1),
    H=st.sampled_from([1, 3, 15, 16, 17, 48, 64]),
    m=st.sampled_from([1, 2, 7, 16, 28]),
    steps=st.sampled_from([1, 2, 7, 8, 9, 17]),
    batch=st.sampled_from([1, 2, 3, 31, 33, 70]),
    single=st.booleans(),
    keep=st.booleans(),
)
def test_native_agrees_for_every_shape(seed, H, m, steps, batch, single, keep):
    dtype = np.float32 if single else np.float64
    arrays, cotangents = problem(seed, H, m, steps, batch, dtype=dtype)
    options = VARIANTS[seed % len(VARIANTS)]
    sequence = seed % 3 == 0
    got = pulled_back(options, arrays, cotangents, sequence=sequence, backend="native", keep=keep)
    close(got, reference(options, arrays, cotangents, sequence=sequence), dtype)


@needs_native
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("sequence, identity", [(False, False), (True, True)])
def test_native_agrees_where_sequences_end_early(keep, sequence, identity):
    """Also at the ends of segments of kept states, and in several tiles of samples."""
    arrays, cotangents = problem(11, 17, 2, 18, 35, identity=identity)
    lengths = np.random.default_rng(11).integers(1, 19, 35)
    lengths[:5] = 1, 8, 9, 16, 18
    lengths = lengths.astype(np.int32)
    got = pulled_back(
        Options(), arrays, cotangents, lengths, sequence=sequence, backend="native", keep=keep
    )
    close(got, reference(Options(), arrays, cotangents, lengths, sequence=sequence))


@needs_native
@pytest.mark.parametrize("modulated, sums, identity", [(4, 4, False), (1, 1, True), (4, 1, True)])
def test_native_agrees_with_modulated_rates(modulated, sums, identity):
    """In several tiles of samples, with sequences that end early, in either type."""
    H, m, batch = 17, 2, 35
    (weights, x, state), cotangents = problem(13, H, m, 18, batch, identity=identity)
    rng = np.random.default_rng(13)
    raw = rng.normal(size=(modulated, H))
    potentials = rng.normal(size=(sums * H, 2 * H))
    potentials[0] = 0  # where nothing moves
    of_input = rng.normal(size=(sums * H, m))
    of_input[0] = 0
    opened, largest = 1 / (1 + np.exp(-raw)), rng.uniform(0.1, 0.9, raw.shape)
    weights = weights._replace(
        modulation=Modulation(*jax.device_put((raw, opened, largest, potentials, of_input)))
    )
    lengths = rng.integers(1, 19, batch).astype(np.int32)
    for dtype in (np.float64, np.float32):
        cast = lambda tree, to=dtype: jax.tree.map(lambda leaf: np.asarray(leaf).astype(to), tree)  # noqa: E731
        given = cast((weights, x, state)), cast(cotangents), lengths
        got = [
            pulled_back(Options(), *given, sequence=True, backend="native", keep=keep)
            for keep in (False, True)
        ]
        if dtype == np.float64:
            want = pulled_back(Options(), *given, sequence=True, backend="scan")
        for found in got:
            close(found, cast(want), dtype)


@backends
def test_nan_in_the_last_input_is_in_the_final_state(backend):
    (weights, x, state), _ = problem(12, 4, 1, 3, 2)
    x = x.at[-1, 0].set(jnp.nan)
    for options in (Options(), Options(rectified_drive=True)):
        final, _ = recurrence.run(options, weights, x, state, sequence=False, backend=backend)
        bad = np.isnan(np.asarray(final))
        assert np.all(bad[0, :4]) and not np.any(bad[1])


@backends
def test_a_step_with_weights_of_nan_gives_nan(backend):
    """Also by way of a modulator, which is NaN where only the pool has NaN."""
    (weights, x, state), _ = problem(12, 4, 1, 3, 2)
    weights = weights._replace(normalization=weights.normalization.at[0].set(jnp.nan))
    final, _ = recurrence.run(Options(), weights, x[:2], state, sequence=False, backend=backend)
    assert np.all(np.isnan(np.asarray(final)[:, [0, 4]]))


@backends
@pytest.mark.parametrize("steps, sequence", [(1, True), (9, True), (11, True), (11, False)])
def test_less_memory_same_numbers(backend, steps, sequence):
    given = problem(1, 4, 1, steps, 3)
    got = pulled_back(Options(), *given, sequence=sequence, backend=backend, memory="less")
    close(got, reference(Options(), *given, sequence=sequence))


@pytest.mark.rounding
@backends
def test_gradients_against_finite_differences(backend):
    """For the native kernel, and for the scan it is compared with."""
    arrays, cotangents = problem(2, 3, 2, 6, 2)
    found = partial(pulled_back, backend="native") if backend == "native" else reference

    def value(arrays):
        results, _ = found(Options(), arrays, cotangents, sequence=True)
        return sum(np.sum(a * np.asarray(b)) for a, b in zip(results, cotangents, strict=True))

    _, gradient = found(Options(), arrays, cotangents, sequence=True)
    rng = np.random.default_rng(3)
    for _ in range(5):
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), arrays)
        shift = lambda h, d=direction: jax.tree.map(  # noqa: E731
            lambda a, b: np.asarray(a) + h * b, arrays, d
        )
        slope = (value(shift(1e-6)) - value(shift(-1e-6))) / 2e-6
        products = jax.tree.map(lambda g, d: np.sum(np.asarray(g) * d), gradient, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-5)


@needs_native
def test_native_under_vmap():
    (weights, x, state), (d_final, d_outputs) = problem(4, 4, 1, 5, 6)

    def alone(gradients):
        """The result of one sample, in a batch of one."""
        return lambda x, state, d_final, d_outputs: gradients(
            Options(),
            (weights, x[:, None], state[None]),
            (d_final[None], d_outputs[:, None]),
            sequence=True,
        )

    native_ = jax.jit(jax.vmap(alone(partial(pulled_back, backend="native")), (1, 0, 0, 1)))
    given = [np.asarray(array) for array in (x, state, d_final, d_outputs)]
    want = [
        alone(reference)(given[0][:, i], given[1][i], given[2][i], given[3][:, i]) for i in range(6)
    ]
    close(native_(*given), jax.tree.map(lambda *leaves: np.stack(leaves), *want))


@needs_native
@pytest.mark.parametrize("mapped", ["x", "weights"])
@pytest.mark.parametrize("sequence", [True, False])
def test_no_samples_under_vmap(sequence, mapped):
    (weights, x, state), _ = problem(4, 4, 1, 5, 6)
    bare = weights, x, state
    given = (
        (weights, x[None][:0], state)
        if mapped == "x"
        else (jax.tree.map(lambda leaf: leaf[None][:0], weights), x, state)
    )
    axes = (None, 0, None) if mapped == "x" else (0, None, None)
    for backend in ("native", "scan"):
        run = partial(recurrence.run, Options(), backend=backend, sequence=sequence)
        found = jax.vmap(run, axes)(*given)
        want = [(0, *array.shape) for array in run(*bare) if array is not None]
        assert [array.shape for array in found if array is not None] == want


@needs_native
@pytest.mark.parametrize("batch, keeps", [(6, False), (3, True)])
def test_under_vmap_products_are_kept_as_for_one_batch(batch, keeps, monkeypatch):
    steps, width = 11, 4 * 16  # of the products; no other test has so many steps
    monkeypatch.setattr(library, "_KEPT_ANYHOW", 4 * steps * width * 8)  # of four samples
    (weights, x, state), _ = problem(4, 4, 1, steps, batch)
    run = partial(recurrence.run, Options(), weights, backend="native")
    mapped = jax.vmap(lambda x, state: run(x[:, None], state[None]), (1, 0))
    for call in (run, mapped):
        gradient = jax.grad(lambda x, call=call: jnp.sum(call(x, state)[1]))
        assert (f"f64[{steps},{batch},{width}]" in str(jax.make_jaxpr(gradient)(x))) == keeps


@backends
def test_gates_saturate_for_extreme_inputs(backend):
    (weights, x, state), _ = problem(5, 8, 1, 50, 3, dtype=np.float32)
    # without the pool, which may grow without bound
    weights = weights._replace(normalization=np.zeros((8, 8), np.float32))
    inputs = np.broadcast_to(np.float32([[0], [1e4], [-1e4]]), x.shape)
    run = jax.jit(partial(recurrence.run, Options(), sequence=False, backend=backend))
    final, _ = run(weights, inputs, state)
    assert np.all(np.isfinite(final))


@needs_native
def test_native_calls_at_once_and_on_two_devices():
    arrays, _ = problem(6, 16, 1, 40, 20, dtype=np.float32)
    run = jax.jit(
        lambda w, x, s: recurrence.run(Options(), w, x, s, sequence=False, backend="native")[0]
    )
    want = run(*arrays)
    devices = jax.devices()[:2]
    found = {}

    def work(i):
        placed = jax.device_put(arrays, devices[i % len(devices)])
        for _ in range(5):
            found[i] = np.asarray(run(*placed))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for got in found.values():
        np.testing.assert_array_equal(got, want)


@needs_native
@pytest.mark.parametrize("isa", library.INSTRUCTION_SETS[:-1])
def test_native_pinned_to_older_instruction_sets(isa, tmp_path):
    """In a separate process, as the choice is made once."""
    code = (
        "import sys, jax; jax.config.update('jax_enable_x64', True)\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy as np, test_kernels as t\n"
        "print(t.native.instruction_set())\n"
        "for dtype in (np.float32, np.float64):\n"
        "    given = t.problem(7, 20, 3, 9, 13, dtype=dtype)\n"
        "    found = t.pulled_back(t.Options(), *given, sequence=True, backend='native')\n"
        "    np.savez(f'{sys.argv[1]}/{dtype.__name__}.npz', *jax.tree.leaves(found))\n"
    )
    environment = {**os.environ, library.PIN: isa}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    if "the variable ORGANICS_ISA must be" in ran.stderr:
        pytest.skip(f"no {isa} here")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == isa
    for dtype in (np.float32, np.float64):
        want = reference(Options(), *problem(7, 20, 3, 9, 13, dtype=dtype), sequence=True)
        with np.load(tmp_path / f"{dtype.__name__}.npz") as stored:
            close(list(stored.values()), jax.tree.leaves(want), dtype)


@pytest.mark.parametrize(
    "pinned, chosen", [(None, "avx2"), ("", "avx2"), ("base", "base"), ("avx2", "avx2")]
)
def test_the_best_instructions_are_used_or_those_named(pinned, chosen, monkeypatch):
    monkeypatch.delenv(library.PIN, raising=False)
    if pinned is not None:
        monkeypatch.setenv(library.PIN, pinned)
    used = []
    here = "base", "avx2"
    assert library.choose(lambda name: name in here and not used.append(name)) == chosen
    assert used[-1] == chosen
    assert not pinned or used == [pinned]  # to ask for more may change the process


@pytest.mark.parametrize("name", ["avx512", "AVX2", "neon"])
def test_instructions_that_are_not_there_are_refused(name, monkeypatch):
    monkeypatch.setenv(library.PIN, name)
    with pytest.raises(
        ValueError, match=f"ORGANICS_ISA must be 'base' or 'avx2' here, not '{name}'"
    ):
        library.choose(lambda name: name in ("base", "avx2"))


@pytest.mark.rounding
@needs_native
@pytest.mark.parametrize("batch", [3, 9, 70, 530])
def test_native_numbers_do_not_depend_on_the_number_of_threads(batch):
    """Bit for bit, so that a run can continue on fewer processors."""
    arrays, (d_final, d_outputs) = problem(10, 16, 2, 5, batch, dtype=np.float32)

    @partial(jax.jit, static_argnums=1)
    def everything(arrays, threads):
        def value(arrays):
            weights, x, state = arrays
            cell, parameters = Options().cell(weights), Options().parameters(weights)
            final, outputs = native.run(cell, parameters, x, state, sequence=True, threads=threads)
            return jnp.sum(final * d_final) + jnp.sum(outputs * d_outputs), (final, outputs)

        return jax.grad(value, has_aux=True)(arrays)

    alone = everything(arrays, 1)
    for threads in (2, 3, 8):
        jax.tree.map(np.testing.assert_array_equal, everything(arrays, threads), alone)


@needs_native
def test_native_refuses_wrong_shapes():
    (weights, x, state), _ = problem(8, 16, 1, 3, 2, dtype=np.float32)
    wrong = weights._replace(gates=weights.gates[:, :-1])
    with pytest.raises(Exception, match="the weights of matrix 2 must have shape"):
        jax.block_until_ready(
            recurrence.run(Options(), wrong, x, state, sequence=False, backend="native")
        )


@pytest.mark.usefixtures("without_type_checks")
def test_unknown_names_are_refused():
    arrays, _ = problem(9, 2, 1, 2, 1)
    with pytest.raises(ValueError, match=r"`backend` must be one of .*'cuda'"):
        recurrence.run(Options(), *arrays, backend="cuda")
    with pytest.raises(ValueError, match=r"`memory` must be"):
        recurrence.run(Options(), *arrays, memory="none")


def test_without_the_library_everything_works(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: (None, "it was not built"))
    assert recurrence.choose("auto") == "scan"
    with pytest.raises(ValueError, match="it was not built"):
        recurrence.choose("native")


@needs_native
def test_a_library_that_jax_refuses_is_done_without(monkeypatch):
    done = []

    def refuse(*_, **__):
        done.append("registered")
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: FFI API version 0.99")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    monkeypatch.setattr(jax, "local_devices", lambda backend: done.append(backend))
    found = native._load_once.__wrapped__()
    assert found[0] is None
    # what is registered before JAX has started is looked at when it does, and then JAX fails
    assert done == ["cpu", "registered"]
    monkeypatch.setattr(native, "_load", lambda: found)
    assert recurrence.choose("auto") == "scan"
    with pytest.raises(ValueError, match=r"cannot be loaded: .*version 0.99"):
        recurrence.choose("native")


# ---- on a mesh of devices ------------------------------------------------------------------------


def mesh_of_two(kind):
    return jax.make_mesh((2,), ("devices",), axis_types=(kind,), devices=jax.devices()[:2])


def shared(arrays, cotangents, lengths, *, sequence, backend, memory="more"):
    """`pulled_back` on two devices that share the batch."""
    share, shares = P("devices"), P(None, "devices")

    def value(arrays, d_final, d_outputs, lengths):
        final, outputs = recurrence.run(
            Options(), *arrays, lengths, sequence=sequence, backend=backend, memory=memory
        )
        total = jnp.sum(final * d_final)
        if outputs is not None:
            total = total + jnp.sum(outputs * d_outputs)
        return jax.lax.psum(total, "devices"), (final, outputs)

    specs = (P(), shares, share)
    function = jax.shard_map(
        jax.grad(value, has_aux=True),
        mesh=mesh_of_two(AxisType.Auto),
        in_specs=(specs, share, shares, share),
        out_specs=(specs, (share, shares)),
    )
    gradients, results = jax.jit(function)(arrays, *cotangents, lengths)
    return results, gradients


@backends
@pytest.mark.parametrize(
    "identity, sequence, memory, ends", [(False, False, "less", False), (True, True, "more", True)]
)
def test_two_devices_that_share_the_batch_give_what_one_gives(
    backend, identity, sequence, memory, ends
):
    """Values, and gradients of the weights, the input and the state."""
    arrays, cotangents = problem(11, 4, 2, 5, 6, identity=identity)
    lengths = np.asarray([5, 1, 4, 2, 5, 3], np.int32) if ends else None
    got = shared(arrays, cotangents, lengths, sequence=sequence, backend=backend, memory=memory)
    close(got, reference(Options(), arrays, cotangents, lengths, sequence=sequence))


@backends
def test_an_input_shared_on_explicit_axes_gives_what_one_device_gives(backend):
    (weights, x, state), cotangents = problem(11, 4, 2, 5, 6)
    lengths = np.asarray([5, 1, 4, 2, 5, 3], np.int32)
    want = reference(Options(), (weights, x, state), cotangents, lengths, sequence=True)
    mesh = mesh_of_two(AxisType.Explicit)
    with jax.set_mesh(mesh):
        put = lambda spec, tree: jax.device_put(tree, NamedSharding(mesh, spec))  # noqa: E731
        arrays = (put(P(), weights), put(P(None, "devices"), x), put(P(), state))
        d_final, d_outputs = (
            put(P("devices"), cotangents[0]),
            put(P(None, "devices"), cotangents[1]),
        )
        got = pulled_back(
            Options(), arrays, (d_final, d_outputs), put(P(), lengths),
            sequence=True, backend=backend,
        )  # fmt: skip
    assert jax.typeof(got[0][1]).sharding.spec == P(None, "devices", None)
    close(got, want)


@backends
@pytest.mark.parametrize("varies", ["weights", "x", "state"])
def test_a_result_that_differs_between_devices_is_not_taken_for_one(backend, varies):
    (weights, x, state), _ = problem(11, 4, 2, 5, 6)
    specs = {"weights": P(), "x": P(), "state": P()}
    specs[varies] = P("devices")
    if varies == "weights":
        weights = jax.tree.map(lambda leaf: jnp.concatenate([leaf, 2 * leaf]), weights)
    if varies == "x":
        specs["x"] = P(None, "devices")
        state = state[:3]
    if varies == "state":
        x = x[:, :3]

    def call(out_specs):
        return jax.eval_shape(
            jax.shard_map(
                lambda *arrays: recurrence.run(Options(), *arrays, sequence=True, backend=backend),
                mesh=mesh_of_two(AxisType.Auto),
                in_specs=tuple(specs.values()),
                out_specs=out_specs,
            ),
            weights, x, state,
        )  # fmt: skip

    with pytest.raises(ValueError, match="out_specs"):
        call(P())
    final, _ = call((P("devices"), P(None, "devices")))
    assert final.shape == (6 if varies != "weights" else 12, 16)


# ---- what the native kernel does not do ----------------------------------------------------------


@needs_native
def test_derivatives_that_native_has_not_are_refused_by_name():
    (weights, x, state), _ = problem(12, 4, 2, 5, 3)

    def last(x):
        return recurrence.run(Options(), weights, x, state, sequence=False, backend="native")[0]

    def total(x):
        return jnp.sum(jnp.sin(last(x)))

    def in_loop(x):
        body = lambda total_, x: (total_ + total(x[None]), None)  # noqa: E731
        return jax.lax.scan(body, jnp.zeros(()), x)[0]

    derivatives = {
        "jvp": lambda x: jax.jvp(last, (x,), (x,)),
        "jvp of jit": lambda x: jax.jvp(jax.jit(last), (x,), (x,)),
        "linearize": lambda x: jax.linearize(last, x)[1](x),
        "jacfwd": jax.jacfwd(last),
        "hessian": jax.hessian(total),
        "hessian in a loop": jax.hessian(in_loop),
        "jacrev twice": jax.jacrev(jax.jacrev(total)),
        "jvp of a checkpoint": lambda x: jax.jvp(jax.checkpoint(last), (x,), (x,)),
    }
    for name, derivative in derivatives.items():
        with pytest.raises(ValueError, match=r'recurrence of `organics.*`backend="scan"`'):
            derivative(x)
            pytest.fail(f"{name} was not refused")
        with pytest.raises(ValueError, match=r'recurrence of `organics.*`backend="scan"`'):
            jax.jit(derivative).lower(x)
            pytest.fail(f"{name} under `jit` was not refused")


@needs_native
def test_native_gradients_do_not_depend_on_those_asked_for_before():
    """The input's gradient is computed only if asked for, also when JAX reuses a recorded call."""
    (weights, x, state), _ = problem(13, 4, 2, 5, 3)

    @partial(jax.jit, inline=True)
    def call(offset, x):
        return recurrence.run(
            Options(), weights._replace(offset=offset), x, state, sequence=True, backend="native"
        )

    def gradient(x):
        return jax.vjp(lambda x: call(weights.offset, x)[1], x)[1](jnp.ones((5, 3, 4)))

    want = gradient(x)
    jax.grad(lambda offset: jnp.sum(call(offset, x)[0]))(weights.offset)
    close(gradient(x), want)


def exported(backend, memory, *sizes):
    """The recurrence, exported with these numbers of steps and samples."""
    (weights, _, _), _ = problem(14, 4, 2, 2, 2)
    steps, batch = jax.export.symbolic_shape(",".join(map(str, sizes)))
    shapes = [jax.ShapeDtypeStruct(shape, float) for shape in ((steps, batch, 2), (batch, 16))]

    @jax.jit
    def call(x, state):
        return recurrence.run(Options(), weights, x, state, backend=backend, memory=memory)

    return jax.export.export(call)(*shapes)


@pytest.mark.parametrize("memory", ["more", "less"])
def test_the_scan_is_exported_for_any_number_of_steps_and_samples(memory):
    for backend, sizes in (("scan", ("t", "b")), ("auto", ("t", 3)), ("scan", (7, "b"))):
        call = exported(backend, memory, *sizes).call
        for steps in (1, 7) if sizes[0] == "t" else (7,):
            (_, x, state), cotangents = problem(14, 4, 2, steps, 3)
            weights = problem(14, 4, 2, 2, 2)[0][0]
            want, _ = reference(Options(), (weights, x, state), cotangents, sequence=True)
            close(call(x, state), want)


@needs_native
@pytest.mark.parametrize("sizes", [(7, 3), ("t", 3), (7, "b")])
def test_native_is_not_exported_and_says_what_is(sizes):
    with pytest.raises(ValueError, match=r'recurrence of `organics.*exported.*`backend="scan"`'):
        exported("native", "more", *sizes)


@needs_native
def test_native_is_not_compiled_for_another_device():
    (weights, x, state), _ = problem(14, 4, 2, 5, 3)
    call = jax.jit(lambda x: recurrence.run(Options(), weights, x, state, backend="native")[0])
    call.trace(x).lower(lowering_platforms=("cpu",))
    with pytest.raises(ValueError, match='runs on CPUs alone, not on cuda.*`backend="scan"`'):
        call.trace(x).lower(lowering_platforms=("cuda",))


@backends
@pytest.mark.parametrize("empty", [0, 1, 2])
@pytest.mark.usefixtures("without_type_checks")
def test_an_empty_input_is_refused(backend, empty):
    (weights, x, state), _ = problem(15, 4, 2, 3, 2)
    with pytest.raises(ValueError, match=r"`x` must have no axis of size 0, not shape"):
        recurrence.run(Options(), weights, x.take(jnp.arange(0), empty), state, backend=backend)
