"""README and docs show what is in `examples/`, and it runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from organics import cli

ROOT = Path(__file__).parents[1]
HOW_TO = list((ROOT / "docs/how-to").glob("*.md"))
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *HOW_TO]
TEXTS = {path: path.read_text() for path in PAGES}
PROGRAMS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def shown(name):
    """The code after each mention of `examples/NAME` that code follows."""
    pattern = rf"`examples/{re.escape(name)}`[^\n]*\n\n```(?:python|sh)\n(.*?)```"
    return [code for text in TEXTS.values() for code in re.findall(pattern, text, re.DOTALL)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_docs_have_the_program_without_its_docstring(name):
    _, program = (ROOT / "examples" / name).read_text().split('"""\n\n', 1)
    assert shown(name) and set(shown(name)) == {program}


def test_the_docs_have_the_commands_of_the_script():
    _, commands = (ROOT / "examples" / "reader.sh").read_text().split("set -e\n", 1)
    assert set(shown("reader.sh")) == {commands}
    for line in commands.splitlines():
        program, command, *rest = line.split("#")[0].split()
        assert program == "organics" and command in cli.COMMANDS
        for file in rest:
            assert not file.startswith("examples/") or (ROOT / file).is_file()


def test_the_docs_name_every_command():
    text = TEXTS[ROOT / "docs" / "command-line.md"]
    assert set(re.findall(r"^\| `organics (\w+)", text, re.MULTILINE)) == set(cli.COMMANDS)


def test_every_file_that_is_named_or_linked_is_there():
    named = 0
    for path, text in TEXTS.items():
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", text):
            assert (path.parent / link).exists(), (path, link)
        for file in re.findall(r"[\s(`](\.?(?:results|examples)/[\w./-]+\.\w+)", text):
            named += 1
            assert (ROOT / file).is_file(), (path, file)
    assert named > 5


def test_the_readme_can_be_read_to_its_end():
    assert TEXTS[ROOT / "README.md"].count("\n") <= 120


ONE_AFTER_ANOTHER = """
import re, runpy, sys, jax
sys.path.append("tests")
__import__("lowering").share_contexts()
for path in sys.argv[1:]:
    print("program", path)
    if path.endswith(".py"):
        runpy.run_path(path, run_name="__main__")
    else:
        text = open(path).read()
        exec("".join(re.findall(r"```python\\n(.*?)```", text, re.DOTALL)), {"__name__": path})
    jax.config.update("jax_enable_x64", False)  # as the next one would find it
"""


def test_the_programs_run():
    """In one process, because starting takes most of the time; also what the how-to pages show."""
    said = {
        "theorist.py": ["valid\n  margin 0.24", "peaks at"],
        "layer.py": ["loss 0.0", "stable for x[0]: True"],
        "own_data.py": ["test accuracy", "'rises': ", "['falls' 'rises'"],
        "physiologist.py": ["contrast 100%", "rings at 51 Hz"],
        "pytorch.py": ["loss 0.", "stable at the end of x[0]: True"],
        "recurrent.py": ["loss 0.", "stable at the end of x[0]: True"],
        "sequence.py": ["(16, 100, 32), certified: True"],
    }
    assert sorted(said) == PROGRAMS
    if importlib.util.find_spec("torch") is None:
        del said["pytorch.py"]
    pages = sorted(path for path in HOW_TO if "```python" in path.read_text())
    assert len(pages) >= 5
    paths = [*(str(ROOT / "examples" / name) for name in said), *map(str, pages)]
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = done.stdout.split("program ")[1:]
    assert len(outputs) == len(paths)
    for words, output in zip(said.values(), outputs[: len(said)], strict=True):
        assert all(word in output for word in words), output
