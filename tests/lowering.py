"""JAX makes a new MLIR context for every program that it lowers: a third of a small one's time.
In the tests, a hundred programs share one."""

import threading

from jax._src.interpreters import mlir

PROGRAMS = 100  # that share a context, which keeps what they are made of

_of_thread = threading.local()


def share_contexts():
    """From now on, programs that a thread lowers one after another share a context."""
    # private: where it is another, every program has its own, which is only slower
    if (make := getattr(mlir, "make_ir_context", None)) is not None:
        mlir.make_ir_context = lambda: make() if _is_lowering() else _shared(make)


def _is_lowering() -> bool:
    """Whether this thread lowers a program, whose context another one must not use."""
    return mlir.ir.Context.current is not None


def _shared(make):
    if getattr(_of_thread, "left", 0) == 0:
        _of_thread.context, _of_thread.left = make(), PROGRAMS
    _of_thread.left -= 1
    return _of_thread.context
