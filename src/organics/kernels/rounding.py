"""Matrix products of numbers in bfloat16, which have the range of float32 and 8 bits.

Both factors are rounded, to the nearest, and products are summed in float32. On the way back the
cotangents are rounded, too, as factors of the products that give the gradients.
"""

import jax
from jaxtyping import Array, Float

from organics.arguments import require_rounded
from organics.names import ProductType


def product(
    x: Float[Array, "*batch m"],
    weights: Float[Array, "r m"],
    products: ProductType,
    bias: Float[Array, " r"] | None = None,
) -> Float[Array, "*batch r"]:
    """`x weights^T`, of such numbers; plus `bias`, the weight of an input that is always 1.

    Raises `ValueError` as `require_rounded` does.
    """
    require_rounded(products, x.dtype)
    rounded = products != "full"
    of = _rounded if rounded else lambda array: array
    found = of(x) @ of(weights).T
    if bias is not None:
        found = found + of(bias).reshape((1,) * (x.ndim - 1) + (-1,))
    return _rounded_back(found) if rounded else found


def _to_bfloat16(x: Array) -> Array:
    # XLA may leave out a conversion there and back, but not this
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


@jax.custom_jvp
def _rounded(x: Array) -> Array:
    """Rounded, with the derivative of `x`."""
    return _to_bfloat16(x)


@_rounded.defjvp
def _(primals, tangents):
    return _rounded(*primals), tangents[0]


@jax.custom_jvp
def _rounded_back(x: Array) -> Array:
    """As it is, with derivatives rounded."""
    return x


@_rounded_back.defjvp
def _(primals, tangents):
    return _rounded_back(*primals), _to_bfloat16(tangents[0])
