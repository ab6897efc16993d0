"""Circuit files: a circuit and its input drives, as JSON or `.npz`. Nothing in a file is trusted.

A circuit file has these keys (members, in an `.npz` archive). All but `W` and `z` may be left out:

==================================  ==============================================================
key                                 value
==================================  ==============================================================
`W`                                 n x n matrix; or structured weights, in JSON only
`W_r`                               the same; the identity, as when left out, is `null` or
                                    `"identity"` in JSON, or in both an array without entries,
                                    such as `zeros((0, 0))`
`b`, `b0`, `sigma`,                 n numbers, or one that stands for n equal ones;
`tau_y`, `tau_a`                    the time constants in ms
`rectified`                         `true` or `false`, or 1 or 0
`z`                                 one input drive (n numbers, or one that stands for n equal
                                    ones) or a list of them (k x n)
`name`, `comment`                   text, for people; in JSON only
==================================  ==============================================================

Some programs write n numbers as a row or a column, one number as a matrix, and a matrix of one
entry as a number. These are read where they are unambiguous. An `n x k` array of drives is refused:
for k = n it could not be told from a `k x n` one.

In JSON, structured weights are an object with the arguments of their class:

==================================  ==============================================================
keys                                class
==================================  ==============================================================
`kernel`, `height`, `width`,        `Convolution`; `kernel` is channels x heard x height x width, or
`border`                            height x width for one channel; `border` may be left out
`left`, `right`, `own`              `LowRank`; `own` may be left out; of `W`, none is negative
`own`                               `Diagonal`
==================================  ==============================================================

In JSON, a file with the key `areas` holds a hierarchy instead:

==================================  ==============================================================
key                                 value
==================================  ==============================================================
`areas`                             a list of circuits, from below, each with the keys above but `z`
`feedforward`                       a list of matrices, from each area to the next; may be left out
                                    where there is one area
`feedback`                          a list of matrices, from each next area back, or `null` in their
                                    place; none, if left out
`gamma`, `g`                        one number, or a list with one for each two neighbours
`form`                              `"balanced"`, `"additive"`, or `"published"`: a
                                    `GatedHierarchy`
`alpha`, `floor`                    of the published form, one number each
`z`                                 as above, for the first area
`name`, `comment`                   text, which is ignored
==================================  ==============================================================

Bounds and defaults are those of `Circuit`, `Hierarchy` and `GatedHierarchy`. Any other key is an
error, so that a misspelt key cannot silently leave a default. No pickle is ever opened, and no
memory is allocated just because a file declares a size.
"""

import io
import json
import reprlib
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from organics.arguments import (
    float_type,
    is_positive,
    nearest,
    require_among,
    require_entries,
    require_square,
    require_vector,
)
from organics.circuit import file_weights
from organics.files import npy
from organics.files.atomic import read_whole, write_atomically
from organics.files.documents import parse_object
from organics.names import HierarchyForm

if TYPE_CHECKING:
    from jaxtyping import Array

    from organics.circuit.circuit import Circuit
    from organics.circuit.gated import GatedHierarchy
    from organics.circuit.hierarchy import Hierarchy
    from organics.circuit.values import Values

VECTORS = ("b", "b0", "sigma", "tau_y", "tau_a")
_PARAMETERS = ("W", "W_r", *VECTORS, "rectified")
KEYS = (*_PARAMETERS, "z")
_COMPULSORY = ("W", "z")
_WORDS = ("name", "comment")
_HIERARCHY_KEYS = ("areas", "feedforward", "feedback", "gamma", "g", "form", "alpha", "floor", "z")
_PUBLISHED = "alpha", "floor"  # keys of the published form alone
_MATRICES = ("feedforward", "feedback")
_WEIGHTS = ("W", "W_r")

# An .npz file may not exceed its limit in memory, either, where every number has 64 bits. A number
# of JSON, two characters with its comma, becomes an object of 32 bytes: hence the lower limit.
MAX_JSON_BYTES = 32 * 2**20
MAX_NPZ_BYTES = 256 * 2**20

Content = dict[str, Any]


class CircuitFileError(ValueError):
    """A file is not a circuit file; the message names the file, the key and the value."""


def load_circuit(
    path: str | Path, dtype: Any = None
) -> "tuple[Circuit | Hierarchy | GatedHierarchy, Array]":
    """The circuit, or hierarchy, and the input drives, shape (drives, n), of a circuit file.

    Arguments
        path: a file whose name ends in `.json` or `.npz`.
        dtype: float32 or float64; by default JAX's default float.

    Raises
        `CircuitFileError`, a `ValueError`, if the content is not that of a circuit file.
        `ValueError` if the suffix or the `dtype` is none of the above, or JAX is set to 32 bits
            and `dtype` is float64.
        `OSError` if the file cannot be read.
    """
    _format(Path(path))
    dtype = float_type(dtype)
    return build(path, read(path), dtype)


def read(path: str | Path) -> Content:
    """The arrays of a circuit file by key, in float64, all checked, without JAX; and its texts.

    Raises as `load_circuit` does.
    """
    path = Path(path)
    parse, _, limit = _format(path)
    try:
        return _shaped(parse(read_whole(path, limit)))
    except ValueError as error:
        raise CircuitFileError(f"{path}: {error}") from None


def build(
    path: str | Path, content: Content, dtype: Any = None
) -> "tuple[Circuit | Hierarchy | GatedHierarchy, Array]":
    """The circuit, or hierarchy, and the drives from what `read` returned.

    Values that are too small for the type become 0. Raises `CircuitFileError` if values are too
    large for it, or no longer valid.
    """
    import jax.numpy as jnp

    dtype = float_type(dtype)
    try:
        z = _cast("z", content["z"], dtype)
        built = _hierarchy(content, dtype) if "areas" in content else _circuit(content, dtype)
        return built, jnp.asarray(z, z.dtype)
    except ValueError as error:
        raise CircuitFileError(f"{path}: {error}") from None


def _circuit(content: Content, dtype: np.dtype) -> "Circuit":
    from organics.circuit.circuit import Circuit

    numbers: Content = {
        key: _cast(key, value, dtype)
        for key, value in content.items()
        if isinstance(value, np.ndarray) and key != "z"
    }
    for key in _WEIGHTS:
        if isinstance(content.get(key), dict):
            with _within(key):
                parts = file_weights.arrays(content[key])
                cast = {name: _cast(name, part, dtype) for name, part in parts.items()}
                numbers[key] = file_weights.as_weights(content[key] | cast)
    return Circuit(**numbers, rectified=content.get("rectified", False))


def _hierarchy(content: Content, dtype: np.dtype) -> "Hierarchy | GatedHierarchy":
    from organics.circuit.gated import GatedHierarchy
    from organics.circuit.hierarchy import Hierarchy

    areas = []
    for i, area in enumerate(content["areas"]):
        with _within(f"areas[{i}]"):
            areas.append(_circuit(area, dtype))
    given: dict[str, Any] = {
        key: _cast(key, content[key], dtype) for key in ("gamma", "g") if key in content
    }
    for key in _MATRICES:
        if content.get(key) is not None:
            each = enumerate(content[key])
            given[key] = [M if M is None else _cast(f"{key}[{i}]", M, dtype) for i, M in each]
    form = content.get("form", "balanced")
    if form != "published":
        return Hierarchy(areas, **given, form=form)
    of_gates = {key: _cast(key, content[key], dtype) for key in _PUBLISHED if key in content}
    return GatedHierarchy(Hierarchy(areas, **given), **of_gates)


@contextmanager
def _within(name: str) -> Iterator[None]:
    """Errors about a part of a file, named."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


def save_circuit(path: str | Path, circuit: Any, drives: "Values") -> None:
    """Write a circuit, or hierarchy, and its input drives, shape (n,) or (drives, n), to a file.

    `path` ends in `.json` or, for a circuit, `.npz`. `load_circuit` reads every value back exactly
    in the same type; `Convolution`, `LowRank` and `Diagonal` come back as they are from JSON, other
    weights, and all from `.npz`, as a matrix. The file is written whole or not at all.

    Raises
        `ValueError` for another suffix, for a stack of circuits or one with an invalid parameter,
            for drives that do not fit the circuit or are not finite, or if the file would be too
            large to load.
        `OSError` if the file cannot be written.
    """
    from organics.circuit.circuit import Circuit

    path = Path(path)
    _, dump, limit = _format(path)
    if not isinstance(circuit, Circuit):
        if path.suffix.lower() == ".npz":
            raise ValueError(f"`path` must end in .json for a hierarchy of areas: {path}.")
        values = _parameters_of_areas(circuit)
        circuit.require_valid()
    else:
        values = _parameters_of(circuit)
        if path.suffix.lower() == ".npz":
            if 8 * circuit.n**2 > MAX_NPZ_BYTES:  # before it is a matrix
                raise ValueError(
                    f"`circuit` has {circuit.n:,} neurons, whose matrix takes more than the "
                    f"{MAX_NPZ_BYTES} bytes that are read back"
                    + ("; save it as .json." if isinstance(values["W"], dict) else ".")
                )
            values |= {"W": np.asarray(circuit.pool)}
            known = circuit.has_identity_recurrence
            values |= {"W_r": None if known else np.asarray(circuit.recurrent)}
    values["z"] = _drives(_finite("drives", np.asarray(drives)), circuit.n, "drives")
    _shaped(values)  # else it could not be read back, as after a parameter was replaced
    data = dump(values)
    if len(data) > limit:
        raise ValueError(
            f"`circuit` takes {len(data)} bytes as {path.suffix}, more than the {limit} that are "
            "read back" + ("; save it as .npz." if path.suffix == ".json" else ".")
        )
    write_atomically(path, data)


def _parameters_of(circuit: "Circuit") -> Content:
    """The parameters of a circuit by key."""
    if circuit.b.ndim != 1 or circuit.dtype not in (np.float32, np.float64):
        raise ValueError(
            "`circuit` must be one circuit in float32 or float64, not one with `b` of shape "
            f"{circuit.b.shape} and type {circuit.dtype}."
        )
    values: Content = {key: np.asarray(getattr(circuit, key)) for key in VECTORS}
    with _within("W"):
        values["W"] = file_weights.as_plain(circuit.pool)
    identity = circuit.has_identity_recurrence
    with _within("W_r"):
        values["W_r"] = None if identity else file_weights.as_plain(circuit.recurrent)
    values["rectified"] = circuit.rectified
    return {key: values[key] for key in _PARAMETERS}


def _parameters_of_areas(system: Any) -> Content:
    """The parameters of a hierarchy by key."""
    of_gates = {key: np.asarray(getattr(system, key)) for key in _PUBLISHED if hasattr(system, key)}
    hierarchy = system.hierarchy if of_gates else system
    values: Content = {"areas": [_parameters_of(area) for area in hierarchy.areas]}
    for key in _MATRICES:
        values[key] = [M if M is None else np.asarray(M) for M in getattr(hierarchy, key)]
    values |= {key: np.asarray(getattr(hierarchy, key)) for key in ("gamma", "g")}
    return values | {"form": system.form} | of_gates


def _format(path: Path) -> "tuple[Callable[[bytes], Content], Callable[[Content], bytes], int]":
    """Parser, writer and size limit for this kind of file."""
    if path.suffix.lower() == ".json":
        return _parse_json, _dump_json, MAX_JSON_BYTES
    if path.suffix.lower() == ".npz":
        return _parse_npz, _dump_npz, MAX_NPZ_BYTES
    raise ValueError(
        f"`path` must end in .json or .npz to be a circuit file: {path}. (In MATLAB, `jsonencode` "
        "of a struct with the fields of one writes such a .json.)"
    )


def _shaped(values: Content) -> Content:
    """The values in the shapes that a circuit or hierarchy takes, and `z` as a list of drives."""
    if "areas" not in values:
        shaped = _shaped_circuit(values)
        n = file_weights.neurons(shaped["W"])
        return shaped | {"z": _drives(_finite("z", values["z"]), n, "z")}
    areas = []
    for i, area in enumerate(values["areas"]):
        with _within(f"areas[{i}]"):
            areas.append(_shaped_circuit(area))
    z = _drives(_finite("z", values["z"]), file_weights.neurons(areas[0]["W"]), "z")
    return values | {"areas": areas, "z": z}


def _shaped_circuit(values: Content) -> Content:
    """The parameters in the shapes that a circuit takes."""
    numbers = {
        key: _finite(key, value)
        for key, value in values.items()
        if isinstance(value, np.ndarray) and key != "z"
    }
    structured = {key: values[key] for key in _WEIGHTS if isinstance(values.get(key), dict)}
    for key, value in structured.items():
        with _within(key):
            structured[key] = file_weights.checked(value)
    if "W" in numbers:
        numbers["W"] = _matrix(numbers["W"])
        require_square("W", numbers["W"].shape)
        W = {"W": numbers["W"]}
    else:
        W = file_weights.arrays(structured["W"])
    for name, entries in W.items():
        which = "W" if name == "W" else f"{name}` of `W"
        require_entries(which, entries, lambda entries: entries >= 0, "be >= 0")
    n = file_weights.neurons(structured.get("W", numbers.get("W")))
    if "W_r" in structured and file_weights.neurons(structured["W_r"]) != n:
        raise ValueError(
            f"`W_r` must be among the {n} neurons of `W`, not "
            f"{file_weights.neurons(structured['W_r'])}."
        )
    if "W_r" in numbers:
        numbers["W_r"] = _matrix(numbers["W_r"]) if n == 1 else numbers["W_r"]
        require_square("W_r", numbers["W_r"].shape, n)
    for key in numbers.keys() & set(VECTORS):
        numbers[key] = _vector(numbers[key], n)
        require_vector(key, numbers[key].shape, n)
        require_entries(key, numbers[key], is_positive, "be finite and > 0")
    others = {key: values[key] for key in values.keys() & {"rectified", *_WORDS}}
    return numbers | structured | others


def _matrix(array: np.ndarray) -> np.ndarray:
    """A single number as a 1 x 1 matrix."""
    return array.reshape(1, 1) if array.size == 1 else array


def _vector(array: np.ndarray, n: int) -> np.ndarray:
    """A row or a column of n numbers as a vector; one number in a matrix as a number."""
    if array.shape == (1, 1):
        return array.reshape(())
    return array.reshape(n) if array.shape in ((1, n), (n, 1)) else array


def _finite(key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"`{key}` must be made of real numbers, not of {array.dtype}.")
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(array))[0]
        entry = "".join(f"[{i}]" for i in where)
        raise ValueError(f"`{key}{entry}` must be finite, not {array[tuple(where)]}.")
    return array


def _cast(key: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        cast = array.astype(dtype)
    if not np.all(np.isfinite(cast)):
        raise ValueError(f"`{key}` has {np.max(np.abs(array))}, which is too large for {dtype}.")
    return cast


def _drives(z: np.ndarray, n: int, name: str) -> np.ndarray:
    if n == 1 and z.size and z.size == max(z.shape, default=1):  # however they lie, one a drive
        return z.reshape(-1, 1)
    z = z if len(z.shape) == 2 and n in z.shape[1:] else _vector(z, n)
    drives = np.full((1, n), z) if z.ndim == 0 else np.atleast_2d(z)
    if drives.ndim != 2 or drives.shape[1] != n or not len(drives):
        transposed = " Its transpose is." if drives.size and len(drives) == n else ""
        raise ValueError(
            f"`{name}` must be one input drive, shape ({n},), or a list of k >= 1 of them, shape "
            f"(k, {n}), not of shape {z.shape}.{transposed}"
        )
    return drives


def _check_keys(
    found: list[str],
    what: str,
    known: tuple = KEYS,
    compulsory: tuple = _COMPULSORY,
) -> None:
    missing = [key for key in compulsory if key not in found]
    unknown = sorted(set(found) - {*known, *_WORDS})
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] if missing else []
        faults += [f"has the unknown {what} {reprlib.repr(unknown)}"] if unknown else []
        like = "".join(nearest(key, known) for key in unknown[:1])
        raise ValueError(f"{' and '.join(faults)}{like or '.'} Its {what} are {', '.join(known)}.")


def _parse_json(data: bytes) -> Content:
    document = parse_object(data, only_floats=True)
    if "areas" in document:
        return _parse_hierarchy(document)
    _check_keys(list(document), "keys")
    return _json_values(document, KEYS)


def _json_values(document: Content, keys: tuple) -> Content:
    """The values of a circuit by key."""
    values: Content = {
        key: _json_array(key, document[key])
        for key in keys
        if key in document and key != "rectified"
    }
    values |= {key: document[key] for key in _WORDS if isinstance(document.get(key), str)}
    if "rectified" not in document:
        return values
    rectified = document["rectified"]
    if rectified not in (True, False):  # as 1.0 and 0.0 are
        raise ValueError(f"`rectified` must be true or false, not {_show(rectified)}.")
    return values | {"rectified": bool(rectified)}


def _parse_hierarchy(document: Content) -> Content:
    compulsory = ("areas", "z")
    if isinstance(document["areas"], list) and len(document["areas"]) > 1:
        compulsory = ("areas", "feedforward", "z")
    _check_keys(list(document), "keys", _HIERARCHY_KEYS, compulsory)
    if not isinstance(document["areas"], list) or not document["areas"]:
        given = "an empty one" if document["areas"] == [] else _show(document["areas"])
        raise ValueError(f"`areas` must be a list of circuits, not {given}.")
    values: Content = {"areas": []}
    for i, area in enumerate(document["areas"]):
        with _within(f"areas[{i}]"):
            if not isinstance(area, dict):
                raise ValueError(f"must be an object, not {_show(area)}.")
            _check_keys(list(area), "keys", _PARAMETERS, ("W",))
            values["areas"].append(_json_values(area, _PARAMETERS))
    for key in _MATRICES:
        if document.get(key) is not None:
            values[key] = _json_matrices(key, document[key], absent=key == "feedback")
    for key in ("gamma", "g", *_PUBLISHED, "z"):
        if key in document:
            values[key] = _json_array(key, document[key])
    if "form" in document:
        require_among("form", document["form"], HierarchyForm)
        values["form"] = document["form"]
    for key in _PUBLISHED:
        if key in document and values.get("form") != "published":
            raise ValueError(f'`{key}` must be left out unless the `form` is "published".')
    return values


def _json_matrices(key: str, value: Any, *, absent: bool) -> list:
    """A list of matrices, or of `None` in place of one that may be absent."""
    if not isinstance(value, list):
        raise ValueError(f"`{key}` must be a list of matrices, not {_show(value)}.")
    arrays = [
        None if matrix is None and absent else _json_array(f"{key}[{i}]", matrix)
        for i, matrix in enumerate(value)
    ]
    return [None if array is None else _matrix(array) for array in arrays]


def _json_array(key: str, value: Any) -> Any:
    if key in _WEIGHTS and isinstance(value, dict):
        return _json_weights(key, value)
    if key == "W_r" and (value is None or value == "identity"):
        return None
    if isinstance(value, float):
        return np.array(value)
    if not isinstance(value, list):
        identity = ' (null or "identity" is the identity)' if key == "W_r" else ""
        raise ValueError(
            f"`{key}` must be a number or a list of numbers{identity}, not {_show(value)}."
        )
    if key == "W_r" and value in ([], [[]]):
        return None
    if not any(isinstance(row, list) for row in value):
        return np.array(_json_row(key, value), float)
    rows = [_json_row(f"{key}[{i}]", row) for i, row in enumerate(value)]
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"`{key}[{i}]` must have {len(rows[0])} entries like `{key}[0]`, not {len(row)}."
            )
    return np.array(rows, float)


def _json_weights(key: str, value: Content) -> Content:
    """Structured weights by the names of their arguments."""
    _check_keys(list(value), f"keys of `{key}`", file_weights.KEYS, ())
    return {
        name: one if name in ("height", "width", "border") else _json_nested(f"{key}.{name}", one)
        for name, one in value.items()
        if name not in _WORDS
    }


def _json_nested(where: str, value: Any, axes: int = 4) -> np.ndarray:
    """An array of at most so many axes."""
    nested = isinstance(value, list) and any(isinstance(row, list) for row in value)
    if axes == 1 or not nested:
        return np.array(_json_row(where, value), float)
    parts = [_json_nested(f"{where}[{i}]", row, axes - 1) for i, row in enumerate(value)]
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"`{where}[{i}]` must have the shape {parts[0].shape} of `{where}[0]`, not "
                f"{part.shape}."
            )
    return np.array(parts)


def _json_row(where: str, row: Any) -> list[float]:
    if not isinstance(row, list):
        raise ValueError(f"`{where}` must be a list of numbers, not {_show(row)}.")
    for j, item in enumerate(row):
        if not isinstance(item, float):
            raise ValueError(f"`{where}[{j}]` must be a number, not {_show(item)}.")
    return row


def _show(value: Any) -> str:
    """A value in JSON notation, shortened."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return {list: "a list", dict: "an object"}.get(type(value), reprlib.repr(value))


def _dump_json(values: Content) -> bytes:
    lines = [f"  {json.dumps(key)}: {_json_text(value)}" for key, value in values.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json_text(value: Any) -> str:
    """One line for a vector, one for each row of a matrix. float64 holds every float32 exactly."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(_json_text(one) for one in value) + "]"
    if isinstance(value, dict):
        each = (f"{json.dumps(key)}: {_json_text(one)}" for key, one in value.items())
        return "{" + ",\n".join(each) + "}"
    if isinstance(value, np.ndarray) and value.ndim == 2:
        rows = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in value.tolist())
        return f"[\n{rows}\n  ]"
    return json.dumps(value.tolist() if isinstance(value, np.ndarray) else value, allow_nan=False)


def _parse_npz(data: bytes) -> Content:
    try:
        _check_directory(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive)
    except ValueError:
        raise
    except Exception as error:  # a broken archive provokes errors of zlib, struct, tokenize, ...
        why = str(error)[:200] or type(error).__name__
        raise ValueError(f"is not a complete .npz archive: {why}.") from None


def _check_directory(data: bytes) -> None:
    """Refuse an archive with a long directory before `zipfile` makes an object of each entry."""
    end = struct.Struct("<4s4H2LH")  # the record that ends an archive; last, the comment's length
    tail = data[-end.size :]
    if len(tail) < end.size or not tail.startswith(b"PK\5\6") or not tail.endswith(b"\0\0"):
        raise ValueError("is not a complete .npz archive: its end record is missing.")
    directory_size = end.unpack(tail)[5]
    is_zip64 = data[-end.size - 20 :].startswith(b"PK\6\7")
    if is_zip64 or directory_size > 512 * len((*KEYS, *_WORDS)):
        raise ValueError(f"has too long a directory for an archive of {', '.join(KEYS)}.")


def _read_archive(archive: zipfile.ZipFile) -> Content:
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    _check_keys(list(members), "members")
    if len(archive.infolist()) > len(members):
        raise ValueError("has a member more than once.")
    members = {key: members[key] for key in KEYS if key in members}
    numbers = sum(_read_header(archive, member, key).size for key, member in members.items())
    if 8 * numbers > MAX_NPZ_BYTES:
        raise ValueError(f"has {8 * numbers} bytes in memory; at most {MAX_NPZ_BYTES} are read.")
    values: Content = {key: _read_member(archive, members[key], key) for key in members}
    if "W_r" in values and values["W_r"].size == 0:
        values["W_r"] = None
    if "rectified" not in values:
        return values
    (rectified,) = values["rectified"].flat
    if rectified not in (True, False):  # as 1 and 0 are
        raise ValueError(f"`rectified` must be True or False, not {rectified}.")
    return values | {"rectified": bool(rectified)}


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> npy.Header:
    """What an array declares, checked before any of it is used."""
    with npy.open_member(archive, member, key) as stream:
        header = npy.read_header(stream, member.file_size, key)
    kind = "biuf" if key == "rectified" else "iuf"
    if header.dtype.hasobject:
        raise ValueError(f"`{key}` holds Python objects, which are never opened{_instead(key)}.")
    if header.dtype.kind not in kind or header.dtype.itemsize > 8:
        what = "one boolean" if key == "rectified" else "real numbers of at most 64 bits"
        raise ValueError(f"`{key}` must be {what}, not of type {header.dtype}{_instead(key)}.")
    if key == "rectified" and header.size != 1:
        raise ValueError(f"`{key}` must be one boolean, not {header.size}.")
    if len(header.shape) > 2:
        shape = reprlib.repr(header.shape)
        raise ValueError(f"`{key}` must have at most 2 axes, not shape {shape}.")
    return header


def _instead(key: str) -> str:
    """What to write instead of a value that NumPy stores as a Python object."""
    if key == "rectified":
        return "; write np.array(True) or np.array(False)"
    identity = ", or for the identity np.zeros((0, 0))" if key == "W_r" else ""
    return f"; write np.asarray({key}, float){identity}"


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> np.ndarray:
    with npy.open_member(archive, member, key) as stream:
        return npy.read_entries(stream, npy.read_header(stream, member.file_size, key), key)


def _dump_npz(values: Content) -> bytes:
    arrays: Content = {k: np.zeros((0, 0)) if v is None else v for k, v in values.items()}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
