"""Refusals, by name, of what the native recurrence cannot do, where JAX is about to do it.

JAX first records a call of a layer, and only afterwards exports the record or differentiates it
forward. So two primitives are recorded with the kernel. They compute nothing.
"""

from typing import TypeVar

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_Tree = TypeVar("_Tree")

_LAYER = "The native recurrence of `organics.nn.ORGaNICs` and `organics.baselines`"
_REMEDY = 'Make the layer with `backend="scan"` for that.'
NOT_EXPORTED = (
    f"{_LAYER} cannot be exported: its library stays on this machine. {_REMEDY} `organics export` "
    "does so for a run."
)
_ONLY_ON_CPUS = f"{_LAYER} runs on CPUs alone, not on {{}}. {_REMEDY}"
_NO_DERIVATIVE = (
    f"{_LAYER} has gradients of the first order (`jax.grad`, `jax.vjp`, `jax.jacrev`) and no other "
    f"derivatives, as of `jax.jvp`, `jax.linearize`, `jax.jacfwd` or `jax.hessian`. {_REMEDY}"
)


def guarded(tree: _Tree, *, gradients: bool) -> _Tree:
    """The arrays unchanged.

    `ValueError` is raised when JAX exports or differentiates what is computed from them, or
    compiles it for another device than a CPU; with `gradients`, reverse mode is allowed.
    """
    return jax.tree.map(lambda leaf: _value.bind(leaf, gradients=gradients), tree)


def _refuse_derivative(*_):
    raise ValueError(_NO_DERIVATIVE)


def _lower(ctx, value, *, gradients: bool):
    del gradients
    if ctx.module_context.lowering_parameters.for_export:
        raise ValueError(NOT_EXPORTED)
    if others := [name for name in ctx.module_context.platforms if name != "cpu"]:
        raise ValueError(_ONLY_ON_CPUS.format(", ".join(others)))
    return [value]


def _differentiate(primals, tangents, *, gradients: bool):
    if not gradients:
        _refuse_derivative()
    return _value.bind(*primals, gradients=gradients), _tangent.bind(*tangents)


_value = Primitive("organics_native")
_value.def_impl(lambda value, **_: value)
_value.def_abstract_eval(lambda aval, **_: aval)
batching.defvectorized(_value)
mlir.register_lowering(_value, _lower)
ad.primitive_jvps[_value] = _differentiate

# the tangent: reverse mode can transpose it, but nothing can compute it
_tangent = Primitive("organics_native_tangent")
_tangent.def_impl(_refuse_derivative)
_tangent.def_abstract_eval(lambda aval: aval)
batching.primitive_batchers[_tangent] = _refuse_derivative
mlir.register_lowering(_tangent, _refuse_derivative)
ad.deflinear2(_tangent, lambda cotangent, _: [cotangent])
