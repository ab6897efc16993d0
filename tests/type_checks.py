"""Run-time checks of the types and shapes in the library's annotations.

Functions without annotations are left alone. By itself, jaxtyping wraps those too, and inner ones
anew at every call, which takes an eighth of the tests' time.
"""

import ast
import functools

from beartype import beartype
from jaxtyping import _import_hook, install_import_hook

# private: where it is another, all functions are wrapped, which is only slower
_transformer = getattr(_import_hook, "JaxtypingTransformer", None)
_wrap = getattr(_transformer, "visit_FunctionDef", None)


def install():
    """Check all of the library that is imported from now on; the result of this call ends that."""
    if _wrap is not None:
        _transformer.visit_FunctionDef = _visit
    return install_import_hook("organics", "type_checks.check")


def check(function):
    """`function` with checks; these are made when it is first called, as most never are."""
    made = functools.cache(lambda: beartype(function))

    @functools.wraps(function)
    def checked(*arguments, **options):
        return made()(*arguments, **options)

    return checked


def _visit(self, node: ast.FunctionDef):
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    if node.returns or any(one is not None and one.annotation for one in arguments):
        return _wrap(self, node)
    self.generic_visit(node)
    return node
