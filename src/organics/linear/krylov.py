"""Linear systems in the Jacobian `J`, solved by products with the weights only.

Under `vmap` over the drives of one circuit, all drives share `W` and `W_r`, so a product is one
product of two matrices, while a factorization is needed for each drive. The method is generalized
conjugate residuals with restarts (Eisenstat, Elman & Schultz 1983), equivalent to GMRES. For a
circuit the preconditioner is the 2 x 2 block that couples a neuron's `y` and `a`; for `W_r = I` the
rest is close to a matrix of rank 1. Cycles are unrolled, so that a loop carries few arrays: under
`vmap` it runs until all drives are done, and what it carries is copied for those done before.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from organics.circuit.circuit import Circuit, State, root
from organics.circuit.weights import Dense
from organics.linear.jacobian import imbalance_jacobian
from organics.machine.mesh import alike

Linear = Callable[[Array], Array]

_CYCLE = 4  # products with `J` between restarts
_CYCLES = 20
LARGE = 4096  # with more neurons (of two numbers each) no matrix is formed
_LARGE_STRUCTURED = 128  # nor with more of these, if neither `W` nor `W_r` is one


def solve_linearized(
    circuit: Circuit, z: Float[Array, " n"], state: State, rhs: Float[Array, " two_n"]
) -> Float[Array, " two_n"]:
    """`x` in `J x = rhs`, for `J` the Jacobian of `circuit.imbalance` at `state`, by
    `solve_by_products`."""
    return solve_by_products(
        linearized(circuit, z, state),
        lambda transposed: neuron_blocks(circuit, state, transposed=transposed),
        lambda numbers: imbalance_jacobian(circuit, State(*jnp.split(numbers, 2))),
        jnp.concatenate(state),
        rhs,
        factorize=may_factorize(circuit),
    )


def may_factorize(circuit: Circuit) -> bool:
    """Whether a matrix may be formed where products with `W` and `W_r` do not suffice."""
    structured = not any(isinstance(w, Dense) for w in (circuit.pool, circuit.recurrent))
    return circuit.n <= (_LARGE_STRUCTURED if structured else LARGE)


def solve_by_products(
    product: Linear,
    nearly_inverse: Callable[[bool], Linear],
    jacobian: Callable[[Float[Array, " m"]], Float[Array, "m m"]],
    at: Float[Array, " m"],
    rhs: Float[Array, " m"],
    *,
    factorize: bool = True,
) -> Float[Array, " m"]:
    """`x` in `J x = rhs`.

    The residual is at most some hundred roundings of `|rhs| + |x|`. Where products do not reach
    that, a factorization is used, or unless `factorize` the result is NaN. Can be
    differentiated to any order in forward and reverse mode.

    Arguments
        product: the map `x -> J x`.
        nearly_inverse: nearly its inverse, or for `True` that of the transpose.
        jacobian: `J` as a function of the state.
        at: the state.
    """
    accuracy = 100 * float(jnp.finfo(rhs.dtype).eps)

    def solver(transposed):
        precondition = nearly_inverse(transposed)

        def solve(product, b):
            x, solved = minimize_residual(product, precondition, b, accuracy)
            if not factorize:
                return jnp.where(solved, x, jnp.nan)
            return _by_factorization(jacobian, at, b, x, ~solved, transposed=transposed)

        return solve

    return jax.lax.custom_linear_solve(product, rhs, solver(False), solver(True))


def linearized(circuit: Circuit, z: Float[Array, " n"], state: State) -> Linear:
    """The map `x -> J x`, for `J` as in `solve_linearized`."""

    def imbalance(x):
        return jnp.concatenate(circuit.imbalance(State(*jnp.split(x, 2)), z))

    _, product = jax.linearize(imbalance, jnp.concatenate(state))
    return product


def neuron_blocks(circuit: Circuit, state: State, *, transposed: bool = False) -> Linear:
    """The map `x -> B^-1 x`, or `B^-T x`, where `B` is the part of `J` within each neuron (see
    `inverse_within`)."""
    y, a = state
    s = root(a)
    q = circuit.rectify(y)
    W = circuit.pool.diagonal()
    positive = a > 0
    active = circuit.active(y)
    y_from_y = circuit.own_gain(a) * active - (1 - active)
    y_from_a = jnp.where(positive, -circuit.recur(q) / jnp.where(positive, 2 * s, 1), 0)
    a_from_y = 2 * W * q * jax.nn.relu(a)
    a_from_a = jnp.where(positive, W * jnp.square(q), 0) - 1
    if transposed:
        y_from_a, a_from_y = a_from_y, y_from_a
    solve = inverse_within(y_from_y, y_from_a, a_from_y, a_from_a)
    return lambda x: jnp.concatenate(solve(*jnp.split(x, 2)))


def inverse_within(y_from_y, y_from_a, a_from_y, a_from_a) -> Callable[..., State]:
    """The map of `(y, a)` to their products with the inverse 2 x 2 block of each neuron, given by
    the vectors of its entries.

    If the block of a neuron is close to singular, minus the identity replaces it.
    """
    determinant = y_from_y * a_from_a - y_from_a * a_from_y
    size = jnp.abs(y_from_y * a_from_a) + jnp.abs(y_from_a * a_from_y)
    regular = jnp.abs(determinant) > 0.01 * jnp.maximum(size, 1)
    scale = 1 / jnp.where(regular, determinant, 1)

    def inverse(dy, da):
        return State(
            jnp.where(regular, scale * (a_from_a * dy - y_from_a * da), -dy),
            jnp.where(regular, scale * (y_from_y * da - a_from_y * dy), -da),
        )

    return inverse


def minimize_residual(
    product: Linear, precondition: Linear, b: Float[Array, " m"], accuracy: float
) -> tuple[Float[Array, " m"], Bool[Array, ""]]:
    """`x` with `|b - A x| <= accuracy * (|b| + |x|)`, and whether that was reached.

    `product` is `x -> A x` and `precondition` nearly its inverse. Gives up when a cycle no longer
    halves the residual.
    """

    def solved(x, size):
        return size <= accuracy * (jnp.linalg.norm(b) + jnp.linalg.norm(x))

    def unfinished(carry):
        x, _, size, before, count = carry
        return ~solved(x, size) & (size < before / 2) & (count < _CYCLES)

    def step(carry):
        x, r, size, _, count = carry
        x = x + _cycle(product, precondition, r)
        r = b - product(x)
        return x, r, jnp.linalg.norm(r), size, count + 1

    size = jnp.linalg.norm(b)
    begin = (jnp.zeros_like(b), b, size, 3 * size, jnp.int32(0))  # the first cycle is always tried
    x, _, size, _, _ = jax.lax.while_loop(unfinished, step, alike(begin))
    return x, solved(x, size)


def _cycle(product: Linear, precondition: Linear, r: Float[Array, " m"]) -> Float[Array, " m"]:
    """The `x` of smallest `|r - A x|` among a few preconditioned products with `A`.

    The image of each new direction is made orthogonal to the earlier images. The direction comes
    from the residual, or from the last image if that hardly reduced the residual.
    """
    x, source, directions, images = jnp.zeros_like(r), r, [], []
    rounding = 10 * float(jnp.finfo(r.dtype).eps)
    for _ in range(_CYCLE):
        direction = precondition(source)
        image = product(direction)
        before = jnp.linalg.norm(image)
        for earlier, its_image in zip(directions, images, strict=True):
            share = image @ its_image
            image, direction = image - share * its_image, direction - share * earlier
        size = jnp.linalg.norm(image)
        new = size > rounding * before  # else only rounding errors are left
        scale = jnp.where(new, 1 / jnp.where(new, size, 1), 0)
        image, direction = scale * image, scale * direction
        share = r @ image
        x, left = x + share * direction, r - share * image
        source = jnp.where(jnp.linalg.norm(left) < 0.9 * jnp.linalg.norm(r), left, image)
        r = left
        directions.append(direction)
        images.append(image)
    return x


def _by_factorization(
    jacobian: Callable[[Float[Array, " m"]], Float[Array, "m m"]],
    at: Float[Array, " m"],
    b: Float[Array, " m"],
    x: Float[Array, " m"],
    needed: Bool[Array, ""],
    *,
    transposed: bool,
) -> Float[Array, " m"]:
    """`x`, or if needed the solution of `J x = b`, or of `J^T x = b`, by a factorization.

    This is a loop because `vmap` computes both branches of a `cond`. The loop changes the state, or
    else the compiler would move the factorization out of it.
    """

    def compute(carry):
        needed, at, _ = carry
        J = jacobian(at)
        x = jnp.linalg.solve(J.T if transposed else J, b)
        return jnp.zeros_like(needed), jnp.zeros_like(at), x

    *_, x = jax.lax.while_loop(lambda carry: carry[0], compute, alike((needed, at, x)))
    return x
