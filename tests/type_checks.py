"""Run-time checks of the types and shapes that the library's annotations say.

What has no annotations is left as it is. By itself, jaxtyping also wraps functions without any, and
those inside of others anew at every call: an eighth of the time that the tests take.
"""

import ast

from beartype import beartype
from jaxtyping import _import_hook, install_import_hook

# private: where it is another, all functions are wrapped, which is only slower
_transformer = getattr(_import_hook, "JaxtypingTransformer", None)
_wrap = getattr(_transformer, "visit_FunctionDef", None)


def install():
    """Have what is imported of the library from now on checked; what it returns ends that."""
    if _wrap is not None:
        _transformer.visit_FunctionDef = _visit
    return install_import_hook("organics", "type_checks.check")


def check(function, *args, **options):
    return beartype(function, *args, **options)


def _visit(self, node: ast.FunctionDef):
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    if node.returns or any(one is not None and one.annotation for one in arguments):
        return _wrap(self, node)
    self.generic_visit(node)
    return node
