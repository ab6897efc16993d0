"""The package as a whole: public names, import graph, what importing it does."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import organics

SOURCE = Path(organics.__file__).parent


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Modules of this package that a module imports when it is itself imported."""
    found = set()
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("organics"):
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("organics")}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            pending += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]
    return found


def test_the_import_graph_has_no_circle():
    paths = {module_name(path): path for path in SOURCE.rglob("*.py")}
    graph = {name: imports(path) & paths.keys() - {name} for name, path in paths.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("organics.circuit") < order.index("organics.steady_states")
    assert order.index("organics.steady_states") < order.index("organics.linear_stability")
    assert "organics.circuit" not in graph["organics"], "`import organics` must stay light"


def test_every_public_name_is_there():
    for name in organics.__all__:
        assert getattr(organics, name) is not None
    assert callable(organics.steady_state) and callable(organics.stability)
    assert set(organics.__all__) == {*organics._MODULES, *organics._HOME_OF} == set(dir(organics))
    assert organics.__version__.count(".") == 2


def test_importing_everything_leaves_jax_as_it_was():
    code = (
        "import organics, jax, pkgutil, importlib, warnings, logging\n"
        "filters, values = list(warnings.filters), dict(jax.config.values)\n"
        "for module in pkgutil.walk_packages(organics.__path__, 'organics.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "changed = {k: v for k, v in jax.config.values.items() if values.get(k, v) != v}\n"
        "assert not changed, changed\n"
        "assert not jax.config.jax_enable_x64\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
