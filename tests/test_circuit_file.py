"""Circuit files: round trips are exact, and nothing in a file is trusted."""

import io
import json
import os
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from organics.circuit import file as circuit_file
from organics.circuit.circuit import Circuit
from organics.circuit.file import KEYS, CircuitFileError, load_circuit, read, save_circuit
from organics.circuit.weights import Convolution

SUFFIXES = (".json", ".npz")
EXAMPLES = Path(__file__).parents[1] / "examples"


def document(**changes) -> dict:
    """A correct circuit file with n = 2, as JSON's objects."""
    return {
        "W": [[1.0, 0.5], [0.25, 1.0]],
        "W_r": [[0.5, -0.1], [0.0, 0.75]],
        "b": 0.5,
        "b0": [0.5, 0.25],
        "sigma": 0.1,
        "tau_y": 2,
        "tau_a": [2, 10.0],
        "rectified": False,
        "z": [[1.0, -1.0], [0.0, 0.5], [2.0, 0.0]],
    } | changes


def arrays(**changes) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in document(**changes).items()}


def write_json(folder, **changes) -> Path:
    path = folder / "circuit.json"
    path.write_text(json.dumps(document(**changes)))
    return path


def write_npz(folder, members, **options) -> Path:
    """An archive of `.npy` bytes (or of arrays) by key."""
    path = folder / "circuit.npz"
    with zipfile.ZipFile(path, "w", **options) as archive:
        for key, value in members.items():
            archive.writestr(f"{key}.npy", value if isinstance(value, bytes) else npy(value))
    return path


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_header(text: str, version=(1, 0)) -> bytes:
    header = text.encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header


def declared(shape, descr="<f8") -> bytes:
    return npy_header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


def assert_refused(path, *words: str, **options):
    with pytest.raises(CircuitFileError) as caught:
        load_circuit(path, **options)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    assert len(message) < 600


def assert_same(left: Circuit, right: Circuit):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@given(
    seed=st.integers(0, 2**31),
    n=st.sampled_from([1, 3]),
    identity=st.booleans(),
    rectified=st.booleans(),
    dtype=st.sampled_from([jnp.float32, jnp.float64]),
    suffix=st.sampled_from(SUFFIXES),
    exponent=st.integers(-30, 30),
)
def test_round_trip_is_exact(
    tmp_path_factory, seed, n, identity, rectified, dtype, suffix, exponent
):
    circuit = Circuit.random(
        jr.key(seed), n, None if identity else 1.0, rectified=rectified, dtype=dtype
    )
    drives = jr.normal(jr.key(seed + 1), (2, n), dtype) * 10.0**exponent
    path = tmp_path_factory.mktemp("files") / f"circuit{suffix}"
    save_circuit(path, circuit, drives)
    loaded, z = load_circuit(path, dtype)
    assert_same(circuit, loaded)
    assert z.dtype == dtype and np.asarray(z).tobytes() == np.asarray(drives).tobytes()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_extreme_numbers_survive(tmp_path, suffix):
    numbers = [2.3e-308, np.nextafter(1, 2), np.finfo(float).max, -0.0]
    path = tmp_path / f"circuit{suffix}"
    save_circuit(path, Circuit(np.eye(4), b=numbers[:3] + [1.0]), numbers)
    circuit, z = load_circuit(path)
    assert np.asarray(z).tobytes() == np.array([numbers]).tobytes()
    assert float(circuit.b[0]) == 2.3e-308


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scalars_broadcast(tmp_path, suffix):
    changes = {"W_r": None, "z": 0.5} if suffix == ".json" else {"W_r": np.zeros(0), "z": 0.5}
    members = arrays(**changes)
    path = write_json(tmp_path, **changes) if suffix == ".json" else write_npz(tmp_path, members)
    circuit, z = load_circuit(path)
    assert circuit.W_r is None and circuit.rectified is False
    assert circuit.b.tolist() == [0.5, 0.5] and circuit.tau_a.tolist() == [2.0, 10.0]
    assert z.tolist() == [[0.5, 0.5]]
    assert circuit.dtype == z.dtype == jnp.float64


def test_both_formats_hold_the_same(tmp_path):
    from_json, z_json = load_circuit(write_json(tmp_path))
    from_npz, z_npz = load_circuit(write_npz(tmp_path, arrays()))
    assert_same(from_json, from_npz)
    assert z_json.shape == (3, 2) and z_json.tolist() == z_npz.tolist()


def test_npz_of_other_number_types_and_orders(tmp_path):
    W = np.array([[1, 2], [3, 4]])
    circuit, _ = load_circuit(write_npz(tmp_path, arrays(W=np.asfortranarray(W, dtype=">f4"))))
    assert circuit.W.tolist() == W.tolist()
    circuit, _ = load_circuit(write_npz(tmp_path, arrays(W=W.astype(np.uint8))))
    assert circuit.W.tolist() == W.tolist()


def test_compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", **arrays())
    assert load_circuit(tmp_path / "c.npz")[0].n == 2


def test_examples_load():
    paths = sorted(EXAMPLES.glob("*.json"))
    assert len(paths) > 5
    for path in paths:
        circuit, drives = load_circuit(path)
        assert drives.shape[1] == circuit.n


def test_example_without_steady_state():
    circuit, drives = load_circuit(EXAMPLES / "no_steady_state.json")
    # a row of W_r vanishes, so y = b z there, and the pool outgrows the decay of `a`
    row, z = 1, drives[0]
    assert not np.any(circuit.W_r[row])
    assert float(circuit.W[row, row] * (circuit.b[row] * z[row]) ** 2) > 1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_keys_but_two_may_be_left_out(tmp_path, suffix, key):
    content = arrays() if suffix == ".npz" else document()
    del content[key]
    if suffix == ".npz":
        path = write_npz(tmp_path, content)
    else:
        path = tmp_path / "circuit.json"
        path.write_text(json.dumps(content))
    if key in ("W", "z"):
        assert_refused(path, f"lacks {key}.")
        return
    circuit, drives = load_circuit(path)
    by_default = Circuit(**{k: v for k, v in document().items() if k not in ("z", key)})
    assert bool(eqx.tree_equal(circuit, by_default)) and drives.shape == (3, 2)


def test_words_and_a_name_for_the_identity(tmp_path):
    path = write_json(tmp_path, W_r="identity", name="a ring", comment=["of", {"two": 2}])
    assert load_circuit(path)[0].W_r is None
    assert read(path)["name"] == "a ring" and "comment" not in read(path)
    path = write_npz(tmp_path, arrays(name=np.str_("a ring")))
    assert load_circuit(path)[0].W_r is not None


def test_unknown_key(tmp_path):
    assert_refused(write_json(tmp_path, tau=1.0, x=2), "unknown keys ['tau', 'x']; did you mean")
    assert_refused(write_json(tmp_path, Sigma=1.0), "did you mean 'sigma'?")
    assert_refused(write_json(tmp_path, x=1.0), "unknown keys ['x']. Its keys are W, W_r, b")
    assert_refused(write_npz(tmp_path, arrays(tau=1.0)), "unknown members ['tau']")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot read .*nowhere.npz: No such file"):
        load_circuit(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"W": [[1.0, True], [0.0, 1.0]]}, ["`W[0][1]`", "number", "true"]),
        ({"W": [[1.0, "2"], [0.0, 1.0]]}, ["`W[0][1]`", "number", "'2'"]),
        ({"W": [[1.0, None], [0.0, 1.0]]}, ["`W[0][1]`", "number", "null"]),
        ({"W": [[1.0, 2.0], [0.0]]}, ["`W[1]`", "2 entries", "not 1"]),
        ({"W": [[1.0, 2.0], 3.0]}, ["`W[1]`", "list of numbers", "3.0"]),
        ({"W": [1.0, [2.0, 3.0]]}, ["`W[0]`", "list of numbers", "1.0"]),
        ({"W": [[[1.0]], [[2.0]]]}, ["`W[0][0]`", "number", "a list"]),
        ({"W": [[1.0, -2.0], [0.0, 1.0]]}, ["`W`", ">= 0", "-2.0"]),
        ({"W": [[1.0, 2.0]]}, ["`W`", "square", "(1, 2)"]),
        ({"W": []}, ["`W`", "square", "(0,)"]),
        ({"W": 1.0}, ["`W_r`", "(1, 1) like `W`", "(2, 2)"]),
        ({"W": None}, ["`W`", "null"]),
        ({"W": {"a": 1}}, ["`W`", "unknown keys of `W`"]),
        ({"W_r": [[1.0]]}, ["`W_r`", "(2, 2)", "(1, 1)"]),
        ({"W_r": "identitty"}, ["`W_r`", 'null or "identity" is', "'identitty'"]),
        ({"W_r": 0.5}, ["`W_r`", "square", "()"]),
        ({"W_r": [0.5, 0.5]}, ["`W_r`", "square", "(2,)"]),
        ({"b": 0}, ["`b`", "> 0", "0.0"]),
        ({"b": [1, 2, 3]}, ["`b`", "(2,)", "(3,)"]),
        ({"sigma": [0.1, -0.1]}, ["`sigma`", "> 0", "[1]", "-0.1"]),
        ({"tau_y": None}, ["`tau_y`", "null"]),
        ({"rectified": 2}, ["`rectified`", "true or false", "2.0"]),
        ({"rectified": []}, ["`rectified`", "true or false", "a list"]),
        ({"rectified": None}, ["`rectified`", "true or false", "null"]),
        ({"rectified": "false"}, ["`rectified`", "true or false", "'false'"]),
        ({"z": []}, ["`z`", "(2,)", "(0,)"]),
        ({"z": [[], []]}, ["`z`", "not of shape (2, 0)."]),
        ({"z": [1.0]}, ["`z`", "(2,)", "(1,)"]),
        ({"z": [[1.0], [2.0], [3.0]]}, ["`z`", "(k, 2)", "(3, 1)"]),
        ({"z": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}, ["`z`", "(k, 2)", "(2, 3)", "transpose"]),
        ({"b": [[1.0, 2.0], [3.0, 4.0]]}, ["`b`", "(2,)", "(2, 2)"]),
        ({"b": [1.0]}, ["`b`", "(2,)", "(1,)"]),
        ({"z": [[1.0, 2.0], [3.0]]}, ["`z[1]`", "2 entries"]),
        ({"b": "x" * 10**6}, ["`b`", "..."]),
    ],
)
def test_wrong_json_value(tmp_path, changes, words):
    assert_refused(write_json(tmp_path, **changes), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["not valid JSON", "line 1"]),
        ("{", ["not valid JSON"]),
        ("[1, 2]", ["one JSON object"]),
        ("null", ["one JSON object"]),
        ('{"W": NaN}', ["NaN", "finite"]),
        ('{"W": -Infinity}', ["-Infinity", "finite"]),
        ('{"W": 1, "b": 2, "W": 1}', ["'W'", "more than once"]),
        ('{"z": {"x": 1, "x": 1}}', ["'x'", "more than once"]),
        ("[" * 100_000, ["nested too deeply"]),
        ('{"W":' * 100_000, ["nested too deeply"]),
    ],
)
def test_wrong_json(tmp_path, text, words):
    path = tmp_path / "circuit.json"
    path.write_text(text)
    assert_refused(path, *words)


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "9" * 10_000, "-1" + "0" * 5000])
def test_huge_json_number(tmp_path, number):
    path = tmp_path / "circuit.json"
    path.write_text(json.dumps(document(z=[0.0, 77.0])).replace("77.0", number))
    assert_refused(path, "`z[1]`", "finite", "inf")


def test_json_that_is_not_text(tmp_path):
    path = tmp_path / "circuit.json"
    path.write_bytes(b'{"W": "\xff"}')
    assert_refused(path, "UTF-8", "byte 7")


def test_json_with_byte_order_mark(tmp_path):
    path = write_json(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_circuit(path)[0].n == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_size_is_checked_before_reading(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as stream:
        stream.truncate(2**40)  # a sparse file: nothing is stored
    assert_refused(path, str(2**40), "bytes")


def test_not_a_file(tmp_path):
    (tmp_path / "folder.json").mkdir()
    assert_refused(tmp_path / "folder.json", "regular file")
    os.mkfifo(tmp_path / "pipe.npz")
    assert_refused(tmp_path / "pipe.npz", "regular file")
    with pytest.raises(FileNotFoundError, match="missing.json"):
        load_circuit(tmp_path / "missing.json")


@given(cut=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(tmp_path_factory, suffix, cut):
    path = tmp_path_factory.mktemp("files") / f"circuit{suffix}"
    save_circuit(path, Circuit.random(jr.key(0), 2), np.ones(2))
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * (len(data.rstrip())))])
    assert_refused(path)


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_corrupted_npz_is_refused_or_the_same(tmp_path_factory, position, flip):
    path = tmp_path_factory.mktemp("files") / "circuit.npz"
    circuit = Circuit.random(jr.key(0), 2)
    save_circuit(path, circuit, np.ones(2))
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= flip
    path.write_bytes(data)
    try:
        loaded, _ = load_circuit(path)
    except CircuitFileError as error:
        assert str(path) in str(error)
    else:
        assert_same(loaded, circuit)  # the byte carried no information, such as a date


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("opened",))


@pytest.mark.parametrize("key", ["W", "rectified", "z"])
def test_pickle_is_never_opened(tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    member = npy(np.array([Bomb()], object))
    assert_refused(write_npz(tmp_path, arrays() | {key: member}), f"`{key}`", "never opened")
    assert_refused(write_npz(tmp_path, arrays() | {key: pickle.dumps(Bomb())}), f"`{key}`")
    (tmp_path / "circuit.npz").write_bytes(pickle.dumps(Bomb()))
    assert_refused(tmp_path / "circuit.npz", "not a complete .npz archive")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (declared((10**9, 10**9)), ["`W`", "declares shape (1000000000, 1000000000)"]),
        (declared((10**400,)), ["`W`", "declares"]),
        (declared((2, -2)), ["`W`", "(2, -2)"]),
        (declared((2, 2, 2)) + bytes(64), ["`W`", "at most 2 axes"]),
        (declared((2, 2)), ["`W`", "declares", "has 0"]),
        (declared((2, 2)) + bytes(40), ["`W`", "declares", "has 40"]),
        (declared((2, 2), "<c16") + bytes(64), ["`W`", "real numbers", "complex128"]),
        (declared((2, 2), "<U4") + bytes(64), ["`W`", "real numbers"]),
        (declared((2, 2), "|b1") + bytes(4), ["`W`", "real numbers", "bool"]),
        (declared((2, 2), "<f16") + bytes(64), ["`W`", "64 bits"]),
        (declared((2, 2), "|O") + bytes(32), ["`W`", "never opened"]),
        (npy_header("{'descr': [('x', 'O')], 'fortran_order': False, 'shape': (1,)}"), ["never"]),
        (npy_header("{'descr': '<f8', 'shape': (1,)}"), ["`W`", "header"]),
        (npy_header("(" * 900), ["`W`", "header"]),
        (npy_header("-" * 900 + "1"), ["`W`", "header"]),
        (npy_header(" " * 60_000), ["`W`", "header"]),
        (npy_header(" " * 100_000, (2, 0)), ["`W`", "header"]),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", ["`W`", "header"]),
        (b"\x93NUMPY\x09\x00\x00\x00", ["`W`", "header"]),
        (b"", ["`W`", "header"]),
    ],
)
def test_hostile_array_header(tmp_path, header, words):
    assert_refused(write_npz(tmp_path, arrays() | {"W": header}), *words)


def as_json(values):
    return {key: getattr(value, "tolist", lambda v=value: v)() for key, value in values.items()}


# n = 2: what a program makes of a matrix, a vector, a number and a truth value, and its one meaning
WAYS_TO_WRITE = [
    ({"b": np.array([[0.5, 0.25]])}, {"b": [0.5, 0.25]}),
    ({"b": np.array([[0.5], [0.25]])}, {"b": [0.5, 0.25]}),
    ({"sigma": np.array([[0.3]])}, {"sigma": [0.3, 0.3]}),
    ({"W_r": np.zeros((0, 0))}, {"W_r": None}),
    ({"W_r": np.zeros((1, 0))}, {"W_r": None}),
    ({"rectified": np.array(1)}, {"rectified": True}),
    ({"rectified": np.array(0.0)}, {"rectified": False}),
    ({"z": np.array([[0.5], [0.25]])}, {"z": [[0.5, 0.25]]}),
    ({"z": np.array([[0.5, 0.25]])}, {"z": [[0.5, 0.25]]}),
    ({"z": np.array([[0.5]])}, {"z": [[0.5, 0.5]]}),
]
ONE = {"W": np.array([[2.0]]), "W_r": np.array([[0.5]]), "b0": np.array([[0.25]]), "tau_a": 2.0}
# the same for n = 1, where a row, a column and a matrix are the same numbers
WAYS_TO_WRITE += [
    (ONE | {"W": np.array(2.0), "W_r": np.array(0.5), "z": 1.0}, {"W": [[2.0]], "W_r": [[0.5]]}),
    (ONE | {"W": np.array([2.0]), "z": np.array([1.0])}, {"W": [[2.0]], "z": [[1.0]]}),
    (ONE | {"z": np.array([3.0, 1.0, 2.0])}, {"z": [[3.0], [1.0], [2.0]]}),
    (ONE | {"z": np.array([[3.0, 1.0, 2.0]])}, {"z": [[3.0], [1.0], [2.0]]}),
    (ONE | {"z": np.array([[3.0], [1.0]])}, {"z": [[3.0], [1.0]]}),
    (ONE | {"b0": 0.25, "W_r": np.zeros((0, 0)), "z": 1.0}, {"W_r": None, "b0": [0.25]}),
]


@pytest.mark.parametrize(("written", "meant"), WAYS_TO_WRITE)
def test_what_other_programs_write_is_read_where_it_has_one_meaning(tmp_path, written, meant):
    json_file = write_json(tmp_path, **as_json(written))
    for path in (json_file, write_npz(tmp_path, arrays(**written))):
        circuit, z = load_circuit(path)
        for key, value in meant.items():
            found = z if key == "z" else getattr(circuit, key)
            assert (found if isinstance(found, bool | None) else found.tolist()) == value


def test_a_truth_value_may_lie_in_a_matrix(tmp_path):
    for value in (np.array([True]), np.array([[1]], np.uint8)):  # as SciPy reads MATLAB's logical
        assert load_circuit(write_npz(tmp_path, arrays(rectified=value)))[0].rectified is True


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rectified": np.array("true")}, ["`rectified`", "np.array(True)"]),
        ({"rectified": np.array(2)}, ["`rectified`", "True or False", "2"]),
        ({"rectified": np.array(np.nan)}, ["`rectified`", "True or False", "nan"]),
        ({"rectified": np.array([True, False])}, ["`rectified`", "one boolean, not 2"]),
        ({"rectified": np.zeros(0, bool)}, ["`rectified`", "one boolean, not 0"]),
        ({"rectified": np.array(None)}, ["`rectified`", "never opened", "np.array(True)"]),
        ({"W_r": np.array(None)}, ["`W_r`", "never opened", "np.zeros((0, 0))"]),
        ({"W": np.array([[1.0, None], [0.0, 1.0]])}, ["`W`", "never", "np.asarray(W, float)"]),
        ({"b": np.array("0.5")}, ["`b`", "<U3", "np.asarray(b, float)"]),
        ({"W_r": np.eye(2, dtype=bool)}, ["`W_r`", "bool", "np.asarray(W_r, float)"]),
    ],
)
def test_what_numpy_keeps_as_something_else_is_refused_with_what_to_write(tmp_path, changes, words):
    np.savez(tmp_path / "c.npz", **(arrays() | changes))
    assert_refused(tmp_path / "c.npz", *words)


def test_nan_in_npz(tmp_path):
    W = np.array([[1.0, np.nan], [0, 1]])
    assert_refused(write_npz(tmp_path, arrays(W=W)), "`W[0][1]`", "finite", "nan")


def test_bytes_are_counted_as_the_numbers_they_become(tmp_path):
    shape = (16_000, 16_000)  # 256 MB as they lie in the file, 2 GB as a circuit
    header = declared(shape, "|u1")
    path = tmp_path / "circuit.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key, value in (arrays() | {"W": None}).items():
            with archive.open(f"{key}.npy", "w") as stream:
                stream.write(header if value is None else npy(value))
                for _ in range(shape[0] if value is None else 0):
                    stream.write(bytes(shape[1]))
    assert path.stat().st_size < 2**22
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(path, "2048000144 bytes in memory")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_zip_bomb_that_lies_about_its_size(tmp_path):
    zeros = declared((2, 2)) + bytes(2**24)
    path = write_npz(tmp_path, arrays() | {"W": zeros}, compression=zipfile.ZIP_DEFLATED)
    honest = struct.pack("<L", len(zeros))
    lie = struct.pack("<L", len(declared((2, 2))) + 32)
    path.write_bytes(path.read_bytes().replace(honest, lie))
    assert_refused(path, "`W`", "CRC")


def test_archive_with_many_entries(tmp_path):
    members = {f"x{i}": b"" for i in range(5000)}
    assert_refused(write_npz(tmp_path, members), "too long a directory")


def test_repeated_member(tmp_path):
    path = write_npz(tmp_path, arrays())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("W.npy", npy(np.eye(2)))
    assert_refused(path, "more than once")


def test_other_compression(tmp_path):
    path = write_npz(tmp_path, arrays(), compression=zipfile.ZIP_LZMA)
    assert_refused(path, "`W`", "stored or deflated")


def test_encrypted_member(tmp_path):
    path = write_npz(tmp_path, arrays())
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert_refused(path, "encrypted")


def test_other_suffix_and_type(tmp_path):
    with pytest.raises(ValueError, match=r"`path` must end in .json or .npz.*c\.txt"):
        load_circuit(tmp_path / "c.txt")
    with pytest.raises(ValueError, match="MATLAB, `jsonencode`"):
        load_circuit(tmp_path / "c.mat")
    with pytest.raises(ValueError, match=r"`path`"):
        save_circuit(tmp_path / "c", Circuit([[1.0]]), 1.0)
    with pytest.raises(ValueError, match="`dtype`.*int32"):
        load_circuit(write_json(tmp_path), np.int32)


def test_float32(tmp_path):
    circuit, z = load_circuit(write_json(tmp_path), jnp.float32)
    assert circuit.dtype == z.dtype == jnp.float32
    assert_refused(write_json(tmp_path, z=[1e60, 0.0]), "`z`", "1e+60", "float32", dtype="float32")
    assert_refused(write_json(tmp_path, b=1e-60), "`b`", "> 0", dtype="float32")


def test_types_follow_jax(tmp_path):
    path = write_json(tmp_path)
    with jax.enable_x64(False):
        assert load_circuit(path)[0].dtype == jnp.float32
        with pytest.raises(ValueError, match="jax_enable_x64"):
            load_circuit(path, np.float64)


def test_save_refuses(tmp_path):
    path, circuit = tmp_path / "c.json", Circuit(np.eye(2))
    for drives, word in [
        ([1.0], r"`drives`.*\(2,\)"),
        ([np.nan, 0.0], r"`drives\[0\]`.*nan"),
        (["a", "b"], "`drives`.*real"),
        (np.zeros((0, 2)), "`drives`"),
        (np.zeros((1, 1, 2)), "`drives`"),
    ]:
        with pytest.raises(ValueError, match=word):
            save_circuit(path, circuit, drives)
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), circuit)
    with pytest.raises(ValueError, match="one circuit"):
        save_circuit(path, stack, np.zeros(2))
    for value, words in (
        (-circuit.b, "`b` must be finite and > 0"),
        (jnp.ones(3), "`b` must be a"),
    ):
        replaced = eqx.tree_at(lambda c: c.b, circuit, value)
        with pytest.raises(ValueError, match=words):
            save_circuit(path, replaced, np.zeros(2))
    assert not path.exists()


@pytest.mark.usefixtures("without_type_checks")
def test_structured_weights_that_cannot_be_read_back_are_not_saved(tmp_path):
    kernel = Convolution(np.ones((1, 1, 3, 3)), 4, 4)
    path = tmp_path / "c.json"
    for name in ("W", "W_r"):
        circuit = Circuit(**{"W": np.eye(16)} | {name: kernel})
        where = lambda c, name=name: getattr(c, name).kernel  # noqa: E731
        even = eqx.tree_at(where, circuit, np.ones((1, 1, 2, 2)))
        with pytest.raises(ValueError, match=f"`{name}`: `kernel` must be of odd height and width"):
            save_circuit(path, even, np.zeros(16))
    assert not path.exists()


def test_too_large_to_load_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(circuit_file, "MAX_JSON_BYTES", 100)
    with pytest.raises(ValueError, match="save it as .npz"):
        save_circuit(tmp_path / "c.json", Circuit(np.eye(2)), np.zeros(2))


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_json(tmp_path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_circuit(path, Circuit(np.eye(3)), np.zeros(3))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_save_into_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        save_circuit(tmp_path / "nowhere" / "c.json", Circuit(np.eye(2)), np.zeros(2))
