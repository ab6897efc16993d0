"""The whole package: public names, import graph, effects of importing it, build."""

import ast
import importlib
import importlib.util
import platform
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import organics
from organics.kernels import library, native

SOURCE = Path(organics.__file__).parent


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Modules of this package that importing a module imports."""
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
    assert order.index("organics.circuit.circuit") < order.index("organics.rest.search")
    assert order.index("organics.rest.point") < order.index("organics.linear_stability.spectrum")
    assert "organics.circuit.circuit" not in graph["organics"], "`import organics` must stay light"


def test_the_root_reads_like_a_table_of_contents():
    modules = [path for path in SOURCE.glob("*.py") if not path.name.startswith("__")]
    assert len(modules) <= 10, modules


def test_every_public_name_is_there():
    for name in organics.__all__:
        assert getattr(organics, name) is not None
    assert callable(organics.steady_state) and callable(organics.stability)
    assert set(organics.__all__) == {*organics._MODULES, *organics._HOME_OF} == set(dir(organics))
    assert organics.__version__.count(".") == 2


@pytest.mark.parametrize("name", ["", *(f".{name}" for name in organics._MODULES)])
def test_a_public_module_shows_what_there_is_and_nothing_else(name):
    """Each name exists, has a docstring and is listed once; imports are not shown."""
    module = importlib.import_module(f"organics{name}")
    assert dir(module) == sorted(module.__all__) and len(set(module.__all__)) == len(module.__all__)
    for shown in module.__all__:
        value = getattr(module, shown)
        assert not callable(value) or value.__doc__
    with pytest.raises(AttributeError):
        module.nothing_of_this_name  # noqa: B018


def test_importing_everything_leaves_jax_as_it_was_and_does_not_need_pyplot():
    code = (
        "import organics, jax, pkgutil, importlib, importlib.util, sys, warnings, logging\n"
        "without = () if importlib.util.find_spec('torch') else ('organics.torch',)\n"
        "filters, values = list(warnings.filters), dict(jax.config.values)\n"
        "for module in pkgutil.walk_packages(organics.__path__, 'organics.'):\n"
        "    if not module.name.endswith('__main__') and not module.name.startswith(without):\n"
        "        importlib.import_module(module.name)\n"
        "changed = {k: v for k, v in jax.config.values.items() if values.get(k, v) != v}\n"
        "assert not changed, changed\n"
        "assert not jax.config.jax_enable_x64\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# stands in for a compiler: says what it was told, and does not know some options
COMPILER = """
import sys
if {unknown!r} & set(sys.argv):
    sys.exit("cc: error: unrecognized command-line option")
with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
open(sys.argv[sys.argv.index("-o") + 1], "w").close()
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Run the build hook in an empty folder with this compiler: its additions and its calls."""
    file = Path(__file__).parent.parent / "hatch_build.py"
    spec = importlib.util.spec_from_file_location("hatch_build", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / module.FOLDER / "cpp").mkdir(parents=True)
    monkeypatch.setattr(library, "LIBRARY", tmp_path / module.LIBRARY)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")

    def run(unknown):
        compiler, log = tmp_path / "my compiler.py", tmp_path / "log"
        compiler.write_text(COMPILER.format(unknown=unknown, log=str(log)))
        monkeypatch.setenv("CXX", f"{sys.executable} '{compiler}'")
        data = {"artifacts": []}
        module.CustomBuildHook(str(tmp_path), {}, None, None, "", "wheel").initialize("", data)
        return data, log.read_text().splitlines() if log.exists() else []

    return run


def test_all_instruction_sets_are_built(build):
    data, calls = build(set())
    assert data["artifacts"] == ["src/organics/kernels/cpp/liborganics.so"]
    assert library.left_out() is None and library.LIBRARY.exists()
    assert "-DORGANICS_AVX2 -DORGANICS_AVX512" in calls[-2]
    names = "library", "base", "avx2", "avx512", "bfloat16.avx512bf16", "bfloat16.amx"
    assert all(f"{name}.o" in calls[-1] for name in names)


def test_an_instruction_set_that_the_compiler_does_not_know_is_left_out(build):
    data, calls = build({"-mavx512f"})
    assert len(data["artifacts"]) == 2 and not data["pure_python"]
    assert (library.left_out() or "").startswith(
        "avx512 was left out: the compiler failed: cc: err"
    )
    assert "-DORGANICS_AVX2" in calls[-2] and "AVX512" not in calls[-2]
    assert "avx2.o" in calls[-1] and "avx512.o" not in calls[-1]
    build(set())
    assert library.left_out() is None


def test_why_there_is_no_library_is_kept(build, monkeypatch):
    data, _ = build({"-fPIC"})
    assert data == {"artifacts": ["src/organics/kernels/cpp/liborganics.txt"]}
    assert not library.LIBRARY.exists()
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    monkeypatch.setattr(native, "_load", native._load_once.__wrapped__)
    assert "unrecognized command-line option" in (native.unavailable() or "")
