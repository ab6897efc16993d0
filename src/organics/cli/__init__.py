"""The command line: `organics COMMAND ...`.

Each command is a dataclass in a module of this folder, named after the command; its fields are the
flags. A command's module is imported when it is called, and JAX when there is work to do, so that
asking for help is quick.
"""

import dataclasses
import gc
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from organics.cli import compiled
from organics.files.atomic import naming

COMMANDS = {
    "demo": "train on handwritten digits, certify every test input, draw it (start here)",
    "train": "train a classifier, with progress, checkpoints and a report",
    "evaluate": "test accuracy of a trained run, and stability at every test input",
    "inspect": "fixed points of a trained network for each input of its task, with proofs",
    "export": "a trained network as a file of ONNX, PyTorch or StableHLO",
    "analyze": "steady state, eigenvalues and certificate of a circuit file, for all its drives",
    "states": "all steady states of a circuit file; with --prove, that there are no others",
    "certify": "certificate of a circuit file, for all its drives; with --rigorous, a proof",
    "simulate": "trajectory of a circuit file, with or without noise",
    "spectrum": "power spectra or coherence of the fluctuations of a circuit file",
    "dispersion": "which waves grow on a circuit file that is the same at every position",
    "fit": "the parameters of a circuit from responses, spectra and time courses",
    "continue": "how steady states move with a parameter: branches, folds, Hopf points",
    "portrait": "phase portrait and all fixed points of a circuit file with n = 1",
    "explore": "a circuit with sliders, as one page for a browser",
    "reproduce": "figures, tables and claims of the paper, each with its verdict",
    "stability": "how many random circuits are stable",
    "data": "list the data sets, add one from files, or say where it lies",
    "info": "versions and devices",
}
_GROUPS = {"data": None, "train": "file"}
"""Commands with commands of their own, and which of these is meant by the name of a file."""

# in its errors, all of one class: too little memory, or a requested device that is missing
_OF_JAX = ("RESOURCE_EXHAUSTED", "Unable to initialize backend")

_DONE, _NEGATIVE, _REFUSED, _BROKEN, _INTERRUPTED = 0, 1, 2, 3, 130


_SHORT = (
    "analyze", "states", "certify", "simulate", "spectrum", "dispersion", "fit", "continue",
    "portrait", "explore", "info",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `organics` command; exits with 0, 1 (a negative answer) or 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    compiled.keep()
    gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, few of which are garbage
    code = run(arguments)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    if arguments and arguments[0] in _SHORT:
        os._exit(code)  # shutting JAX down takes a seventh of the time of a short command
    sys.exit(code)


def _flush(stream: TextIO) -> None:
    """Write what is still to be written; drop what cannot be, or Python would complain at exit."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # it is closed
        pass


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("\norganics: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except (BrokenPipeError, SystemExit):  # rich turns the former into the latter
        sys.stderr.close()  # nobody reads on; Python would complain at exit
        return _DONE
    except Exception as error:
        if _expected(error):
            from organics.cli.answer import note

            note(f"organics: {str(error) or type(error).__name__}")
            return _REFUSED
        traceback.print_exc()
        print("organics: this is a fault of the program, please report it.", file=sys.stderr)
        return _BROKEN


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        with naming("standard output", "write"):
            print(_help(), file=sys.stdout if arguments else sys.stderr, flush=True)
        return _DONE if arguments else _REFUSED
    name, *rest = arguments
    if name == "--version":
        from organics import __version__

        with naming("standard output", "write"):
            print(__version__, flush=True)
        return _DONE
    if name not in COMMANDS:
        like, commands = _like(name, COMMANDS), ", ".join(COMMANDS)
        print(f"organics: no command {name!r}{like} Commands: {commands}.", file=sys.stderr)
        return _REFUSED
    from organics.cli.answer import show

    try:
        with naming("standard output", "write"):
            try:
                command = _parse(name, rest)
            finally:
                sys.stdout.flush()  # the help, if that was asked for
    except SystemExit as exit_:  # 0 after --help, 2 for a usage error
        return exit_.code if isinstance(exit_.code, int) else _REFUSED
    answer = command.run()
    if answer is None:  # another process answers
        return _DONE
    code = _DONE if answer.positive else _NEGATIVE
    try:
        show(answer, as_json=command.json)
    except (BrokenPipeError, SystemExit):  # rich turns the former into the latter
        sys.stderr.close()  # nobody reads on; Python would complain at exit
    return code


def _parse(name: str, rest: Sequence[str]) -> Any:
    """The command, with its flags.

    Raises `SystemExit` after --help or for a usage error, and `ValueError` for an unknown word or
    flag, for NaN, infinity or numbers beyond 64 bits, and for values that the settings refuse.
    """
    import tyro

    from organics.settings import check

    commands = import_module(f"organics.cli.{name}").COMMANDS
    if name in _GROUPS:
        if _GROUPS[name] and rest and rest[0] not in commands and _is_file(rest[0]):
            rest = [_GROUPS[name], *rest]
        _require_known(name, rest, commands)
        commands = reduce(or_, commands.values())
    asked = " ".join(["organics", name, *rest[:1]] if name in _GROUPS else ["organics", name])
    command, unknown = tyro.cli(
        commands,
        prog=f"organics {name}",
        args=rest,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
        return_unknown_args=True,
    )
    if unknown:
        raise ValueError(_not_known(asked, unknown[0], type(command)))
    check(type(command), vars(command), _options(type(command)))
    return command


def _is_file(word: str) -> bool:
    """Whether a word is the name of a file, which need not exist."""
    path = Path(word)
    return not word.startswith("-") and (bool(path.suffix) or len(path.parts) > 1 or path.exists())


def _require_known(name: str, rest: Sequence[str], commands: Iterable[str]) -> None:
    """Refuse anything but a command's own subcommands."""
    if not rest or rest[0].startswith("-") or rest[0] in commands:
        return
    like, known = _like(rest[0], commands), ", ".join(commands)
    raise ValueError(f"no `organics {name} {rest[0]}`{like} There are: {known}.")


def _not_known(asked: str, word: str, command: type) -> str:
    """The error message for a word that the command does not know."""
    if not word.startswith("-"):
        return f"{word!r} is a word too many; see `{asked} --help`."
    flag = word.partition("=")[0]
    return f"no option {flag!r}{_like(flag, _flags(command))} See `{asked} --help`."


def _like(word: str, words: Iterable[str]) -> str:
    """The end of a message: the word that may have been meant."""
    from organics.arguments import nearest

    return nearest(word, words) or "."


def _flags(command: type) -> Iterator[str]:
    """The options of a command, including those of its settings."""
    hints, options = get_type_hints(command), _options(command)
    for field in dataclasses.fields(command):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _flags(hints[field.name])
        else:
            no = "no-" if field.default is True else ""
            yield f"--{no}{options.get(field.name, field.name).replace('_', '-')}"


def _options(command: type) -> dict[str, str]:
    """The fields whose option has another name, and that."""
    return {
        field: mark.name
        for field, hint in get_type_hints(command, include_extras=True).items()
        for mark in getattr(hint, "__metadata__", ())
        if getattr(mark, "name", None) is not None
    }


def _expected(error: Exception) -> bool:
    """Whether the error says what is wrong with the input or the machine, not with the program."""
    from organics.errors import Failed

    expected = isinstance(error, ValueError | OSError | ArithmeticError | MemoryError | Failed)
    return expected or any(words in str(error) for words in _OF_JAX)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: organics COMMAND ...",
            "",
            "Recurrent circuits with divisive normalization: simulate, solve, certify, train.",
            "",
            *lines,
            "",
            "Every command has --help, with an example, and --json for machines.",
            "Exit codes: 0 done, 1 a negative answer (asked with --check), 2 bad usage or input.",
        ]
    )
