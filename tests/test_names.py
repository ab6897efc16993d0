"""Every word of an option is written once, and means something."""

import ast
from collections import Counter
from pathlib import Path
from typing import get_args

import organics
from organics import names
from organics.baselines import catalog
from organics.data.catalog import DIGITS, FILE_DATASETS
from organics.data.sequences import TASKS
from organics.data.tasks import catalog as tasks
from organics.machine import cluster
from organics.simulation import ode


def literals(path):
    """The words of each `Literal` with several words in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            words = [leaf.value for leaf in ast.walk(node.slice) if isinstance(leaf, ast.Constant)]
            if len(words) > 1:
                yield frozenset(words)


def test_no_words_are_written_twice():
    source = Path(organics.__file__).parent
    found = Counter(words for path in source.rglob("*.py") for words in literals(path))
    assert [set(words) for words, times in found.items() if times > 1] == []


def test_names_imports_nothing():
    tree = ast.parse(Path(names.__file__).read_text())
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imported] == ["from typing import Literal"]


def test_the_words_are_those_that_there_are():
    assert set(get_args(names.DatasetName)) == {DIGITS, *FILE_DATASETS}
    assert set(get_args(names.TaskName)) == TASKS.keys()
    assert set(get_args(names.MadeTaskName)) == tasks.TASKS.keys()
    numbers = {name for name in tasks.TASKS if tasks.build(name).target.kind == "numbers"}
    assert set(get_args(names.NumbersTaskName)) == numbers
    assert set(get_args(names.BaselineName)) == catalog._MODELS.keys()
    assert set(get_args(names.Method)) == ode._SOLVERS.keys()
    assert set(get_args(names.SweepBackend)) == {cluster.PROCESSES, *cluster._CONNECTED}
    assert get_args(names.Recurrence) == (
        "free", "identity", "bounded", "semidefinite", "orthogonal",
    )  # fmt: skip
