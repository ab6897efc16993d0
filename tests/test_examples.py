"""What the README shows is what `examples/` has, and it runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from organics import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def example(name):
    return (ROOT / "examples" / name).read_text()


@pytest.mark.parametrize("name", ["theorist.py", "layer.py", "recurrent.py"])
def test_the_readme_has_the_program_without_its_docstring(name):
    _, program = example(name).split('"""\n\n', 1)
    assert f"`examples/{name}`:\n\n```python\n{program}```" in README


def test_the_readme_has_the_commands_of_the_script():
    _, commands = example("reader.sh").split("set -e\n", 1)
    assert f"`examples/reader.sh`:\n\n```sh\n{commands}```" in README
    for line in commands.splitlines():
        program, command, *rest = line.split("#")[0].split()
        assert program == "organics" and command in cli.COMMANDS
        for file in rest:
            assert not file.startswith("examples/") or (ROOT / file).is_file()


def test_the_readme_names_every_command_and_file_that_there_is():
    named = set(re.findall(r"^\| `organics (\w+)", README, re.MULTILINE))
    assert named == set(cli.COMMANDS)
    paths = re.findall(r"[\s(`](\.?(?:results|examples)/[\w./-]+\.\w+)", README)
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).is_file(), path


ONE_AFTER_ANOTHER = """
import runpy, sys, jax
for path in sys.argv[1:]:
    print("program", path)
    runpy.run_path(path, run_name="__main__")
    jax.config.update("jax_enable_x64", False)  # as the next one would find it
"""


def test_the_programs_run():
    """In one process, as most of the time goes into its start."""
    said = {
        "theorist.py": ["Verification(valid=True", "peaks at"],
        "layer.py": ["loss 0.0", "stable for x[0]: True"],
        "recurrent.py": ["loss 0.", "stable at the end of x[0]: True"],
    }
    paths = [str(ROOT / "examples" / name) for name in said]
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for words, output in zip(said.values(), done.stdout.split("program ")[1:], strict=True):
        assert all(word in output for word in words), output
