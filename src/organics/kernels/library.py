"""The compiled library of recurrences, for any program: needs NumPy's memory, but no JAX.

`organics.kernels.native` gives the same library to JAX. Here it is called by addresses of arrays,
as of NumPy (`array.ctypes.data`) or PyTorch (`tensor.data_ptr()`).
"""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from organics.names import ProductType

LIBRARY = Path(
    # another build of it, such as one with sanitizers
    os.environ.get("ORGANICS_LIBRARY") or Path(__file__).parent / "cpp" / "liborganics.so"
)
INSTRUCTION_SETS = ("base", "avx2", "avx512", "avx512bf16", "amx")
"""The kernel is compiled for those that the compiler knows. Each needs a newer processor. The last
two have products of numbers in bfloat16; the others multiply such numbers as float32."""
PIN = "ORGANICS_ISA"
"""An environment variable that may name one of them, for tests. It is read once."""
MULTIPLE = 16
"""The kernels need a number of neurons that is a multiple of this."""
SEGMENT = 8
"""Steps between kept states: a segment of records stays in the processor's cache."""
# From this many neurons on, computing all products again takes longer than keeping them: at 784
# steps 0.39 s instead of 0.36 for 128 neurons, 1.63 instead of 1.30 for 256, the same for 64.
_KEEP_PRODUCTS = 128
# Beyond so many bytes, computing them again is quicker, as fresh memory is slow: at 3,136 steps
# 1.5 s instead of 1.9 for 128 neurons, whose products are 1.6 GB, and 6.3 instead of 8.3 for 256.
_KEPT_AT_MOST = 2**30
_KEPT_ANYHOW = 2**26  # bytes up to which fewer neurons gain, too, about a tenth
_TILED_FROM = 4  # `kEnough` of kernel.hpp: fewer sequences are not multiplied by tiles


class Cell(NamedTuple):
    """One of the native kernels. `cpp/cells` has a file for each.

    name: as listed in `cpp/sequence.hpp`.
    parts: the number of vectors (H,) in the state. The first is the output.
    kept: the number of vectors from the products of a step that the backward pass needs.
    settings: untrained numbers, and options.
    products: numbers that its matrix products are of; "bfloat16" is for float32 only.
    """

    name: str
    parts: int
    kept: int
    settings: tuple[float, ...] = ()
    products: ProductType = "full"

    @property
    def all_settings(self) -> tuple[float, ...]:
        """The settings as the library takes them: always four."""
        return (*self.settings, 0.0, 0.0, 0.0, 0.0)[:4]


def gated_cell(
    identity: bool,
    rectified: bool,
    rectified_after: bool,
    rectified_drive: bool,
    *,
    modulated: int = 0,
    sums: int = 0,
    products: ProductType = "full",
) -> Cell:
    """The gated circuit's cell; the options are those of `organics.kernels.equations`. The number
    of modulated rates is 0, 1 or 4; `sums` is the same, or 1 where all follow one sum."""
    options = identity, rectified, rectified_after, rectified_drive
    name = {
        (0, 0): "organics",
        (1, 1): "organics-modulated-y",
        (4, 4): "organics-modulated",
        (4, 1): "organics-modulated-together",
    }[modulated, sums]
    kept = (3 if identity else 4) + modulated
    return Cell(name, 4, kept, tuple(map(float, options)), products)


def keeps(H: int, batch: int, size: int, tiled: bool) -> bool:
    """Whether to keep the products of so many neurons and sequences, which are so many bytes. By
    tiles it is quicker to compute them again than to write and read them."""
    again = tiled and batch >= _TILED_FROM
    return not again and size <= (_KEPT_AT_MOST if H >= _KEEP_PRODUCTS else _KEPT_ANYHOW)


def tiled(products: ProductType) -> bool:
    """Whether such products are computed by tile registers."""
    return products == "bfloat16" and load().instructions == "amx"


# ---- the file ------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """The library, and the instructions that it uses; or the reason why there is none."""

    handle: ctypes.CDLL | None
    instructions: str | None
    reason: str | None


# without a lock, which a fork could leave locked: loading twice gives the same library
@functools.cache
def load() -> Loaded:
    """The library, loaded once.

    Raises `ValueError` if the environment variable ORGANICS_ISA names instructions that are not
    here.
    """
    if not LIBRARY.exists():
        reason = left_out() or f"there is no {LIBRARY}"
        return Loaded(None, None, f"it was not built when the package was installed: {reason}")
    try:
        handle = ctypes.cdll.LoadLibrary(str(LIBRARY))
        use = handle.organics_use
        use.argtypes, use.restype = [ctypes.c_char_p], ctypes.c_bool
        chosen = choose(lambda name: use(name.encode()))
        for function, arrays in ((handle.organics_plain_forward, 7),
                                 (handle.organics_plain_backward, 8)):  # fmt: skip
            pointers = [ctypes.c_void_p] * arrays
            more = [ctypes.POINTER(_Pointers)] if arrays == 8 else []
            function.argtypes = [ctypes.POINTER(_Problem), *pointers, *more]
            function.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return Loaded(None, None, f"{LIBRARY.name} cannot be loaded: {error}")
    return Loaded(handle, chosen, None)


def left_out() -> str | None:
    """What the build of the library left out, and why; `None` if nothing."""
    file = LIBRARY.with_suffix(".txt")  # written by hatch_build.py
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def choose(use: Callable[[str], bool]) -> str:
    """The instructions for the kernel: the best, or those that the variable names."""
    pinned = os.environ.get(PIN)
    if pinned and use(pinned):
        return pinned
    usable = [name for name in INSTRUCTION_SETS if use(name)]
    if pinned:
        names = " or ".join(map(repr, usable))
        raise ValueError(f"the variable {PIN} must be {names} here, not {pinned!r}.")
    return usable[-1]


# ---- calls ---------------------------------------------------------------------------------------


class _Pointers(ctypes.Structure):
    """Addresses of weights or of their gradients."""

    _fields_ = [("matrix", ctypes.c_void_p * 3), ("input", ctypes.c_void_p),
                ("vectors", ctypes.c_void_p)]  # fmt: skip


class _Problem(ctypes.Structure):
    """As in `library.cpp`."""

    _fields_ = [
        ("cell", ctypes.c_char_p),
        ("settings", ctypes.c_double * 4),
        *((name, ctypes.c_int64) for name in
          ("doubles", "steps", "batch", "hidden", "inputs", "segment", "threads", "bfloat16")),
        ("weights", _Pointers),
    ]  # fmt: skip


class Sizes(NamedTuple):
    """What a call computes, besides its cell.

    Attributes
        doubles: whether the numbers are float64, else float32.
        steps, batch, hidden, inputs: T, B, H (a multiple of `MULTIPLE`) and m.
        segment: steps between two kept states.
        threads: their number; 0 is one for each processor that the process may use.
    """

    doubles: bool
    steps: int
    batch: int
    hidden: int
    inputs: int
    segment: int
    threads: int


class Addresses(NamedTuple):
    """Where three matrices (0 if the cell has fewer), the input's weights and the vectors of
    `organics.kernels.cells.Parameters` begin, or their gradients."""

    first: int
    second: int
    third: int
    input: int
    vectors: int


class ForwardArrays(NamedTuple):
    """Where the arrays of a forward pass begin; 0 for one that is not given or not wanted.

    Given are x (T, B, m), initial (B, parts H) and lengths (B,), int32; written are final
    (B, parts H), kept (ceil(T / segment), B, parts H), products (T, B, kept H) and outputs
    (T, B, H). All are row-major.
    """

    x: int
    initial: int
    lengths: int
    final: int
    kept: int
    products: int
    outputs: int


class BackwardArrays(NamedTuple):
    """The same for a backward pass, which writes d_x and d_initial."""

    x: int
    kept: int
    products: int
    lengths: int
    d_final: int
    d_outputs: int
    d_x: int
    d_initial: int


def forward(cell: Cell, sizes: Sizes, weights: Addresses, arrays: ForwardArrays) -> None:
    """Carry the state through all steps. Nobody may change or free the arrays meanwhile.

    Raises `ValueError` if the library refuses the sizes, or is not there.
    """
    _call("organics_plain_forward", cell, sizes, weights, arrays)


def backward(
    cell: Cell, sizes: Sizes, weights: Addresses, arrays: BackwardArrays, gradients: Addresses
) -> None:
    """Gradients of the weights, and of the input and the initial state. As `forward`."""
    _call("organics_plain_backward", cell, sizes, weights, arrays, _pointers(gradients))


def _call(
    name: str, cell: Cell, sizes: Sizes, weights: Addresses, arrays: Sequence[int], *more
) -> None:
    handle, _, reason = load()
    if handle is None:
        raise ValueError(f"there is no native kernel: {reason}")
    settings, rounds = (ctypes.c_double * 4)(*cell.all_settings), cell.products == "bfloat16"
    problem = _Problem(cell.name.encode(), settings, *sizes, rounds, _pointers(weights))
    refusal = getattr(handle, name)(problem, *arrays, *more)
    if refusal is not None:
        raise ValueError(refusal.decode())


def _pointers(addresses: Addresses) -> _Pointers:
    return _Pointers((ctypes.c_void_p * 3)(*addresses[:3]), *addresses[3:])
