"""`contract` in C++, many boxes at a time; where that is not possible, by NumPy."""

import ctypes
import functools

import numpy as np
from jaxtyping import Float

from organics.enumeration import contraction
from organics.enumeration.contraction import Contracted, Equations
from organics.kernels import library

_MOST_UNKNOWNS = 8
_LARGEST, _SMALLEST = 1e30, 1e-30  # within these nothing overflows


def contract(
    equations: Equations, low: Float[np.ndarray, "k n"], high: Float[np.ndarray, "k n"]
) -> Contracted:
    """One step for each box, as `contraction.contract`."""
    kernel = _kernel()
    if kernel is None or not _suits(equations, low, high):
        return contraction.contract(equations, low, high)
    k, n = low.shape
    arrays = [equations.W, equations.W_r, *equations.c, *equations.d]
    arrays = [np.ascontiguousarray(array, np.float64) for array in arrays]
    low, high = low.astype(np.float64, order="C"), high.astype(np.float64, order="C")  # copies
    known, widest = np.empty(k, np.int32), np.empty(k, np.int32)
    pointers = [array.ctypes.data for array in (*arrays, low, high, known, widest)]
    if not kernel(n, k, *pointers):
        return contraction.contract(equations, low, high)
    return Contracted(low, high, known, widest)


@functools.cache
def _kernel():
    """The function of the library; `None` if there is none."""
    function = getattr(library.load().handle, "organics_contract", None)
    if function is None:  # of an older library, or there is none
        return None
    function.argtypes = [ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 10]
    function.restype = ctypes.c_bool
    return function


def available() -> bool:
    """Whether boxes are contracted natively."""
    return _kernel() is not None


def _suits(equations: Equations, low: np.ndarray, high: np.ndarray) -> bool:
    sizes = [np.max(np.abs(array)) for array in (equations.W, equations.W_r, *equations.d)]
    sizes += [np.max(equations.c.high), np.max(np.abs(low)), np.max(np.abs(high))]
    few = equations.n <= _MOST_UNKNOWNS and len(low) > 0
    return few and bool(max(sizes) <= _LARGEST and np.min(equations.c.low) >= _SMALLEST)
