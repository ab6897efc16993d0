"""Builds the native kernel when the package is installed; without a compiler, installs without it.

One file of kernels is compiled for several instruction sets, and the library chooses among them
when it is loaded, so a wheel runs on any processor of its architecture. What could not be built is
written, with the reason, into a file beside it, as pip shows nothing of what is said here.

    python hatch_build.py FILE [FLAG ...]

builds it as FILE with further flags for the compiler, such as those of the sanitizers.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/organics/kernels")
LIBRARY = FOLDER / "cpp" / "liborganics.so"
LACKING = LIBRARY.with_suffix(".txt")
COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
KERNEL = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# both ends of an interval are rounded upwards, which the compiler must not undo
INTERVALS = ["-O3", "-fno-math-errno", "-ffp-contract=fast", "-frounding-math"]
SOURCES = {"sequence": KERNEL, "bfloat16": KERNEL, "contraction": INTERVALS}
# the instructions that `supported` in library.cpp asks the processor for, and no others
AVX2 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
ALL_AVX512 = [*AVX2, *AVX512, "-mprefer-vector-width=512"]
PAIRS = [*ALL_AVX512, "-mavx512bf16"]
TILES = [*PAIRS, "-mamx-tile", "-mamx-bf16"]
X86 = {"avx2": AVX2, "avx512": ALL_AVX512, "avx512bf16": PAIRS, "amx": TILES}
# the other sources gain nothing from these instructions
ONLY = {"avx512bf16": ["bfloat16"], "amx": ["bfloat16"]}


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls before it packs the wheel (or links an editable install)."""

    def initialize(self, version, build_data):
        """Compile, and say that the wheel belongs to this platform; or say why not."""
        del version
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        for file in (LIBRARY, LACKING):
            (root / file).unlink(missing_ok=True)
        try:
            lacking = compile_library(root, root / LIBRARY)
        except (OSError, RuntimeError) as error:
            lacking = [str(error)]
        if lacking:
            (root / LACKING).write_text("\n".join(lacking) + "\n", encoding="utf-8")
            build_data["artifacts"].append(str(LACKING))
            self.app.display_warning("organics, native kernel: " + "; ".join(lacking))
        if not (root / LIBRARY).exists():
            return
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def compile_library(root: Path, target: Path, flags: Sequence[str] = ()) -> list[str]:
    """Build the library from the sources below `root` and put it at `target`.

    Returns which instruction sets were left out, and why: an older compiler does not know them all.

    Raises `RuntimeError` if a tool or a header is lacking, or if the compiler fails.
    """
    compiler = _compiler()
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        raise RuntimeError("jaxlib, whose headers are needed, is not installed")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    source = root / FOLDER / "cpp"
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)

        def start(name: str, unit: Sequence[str], file: str) -> subprocess.Popen:
            output = ["-c", "-o", str(folder / f"{name}.o"), str(source / file)]
            return _start([*compiler, *COMMON, *unit, *flags, *output])

        running = {
            (name, file): start(
                f"{file}.{name}", [*how, *isa, f"-DORGANICS_ISA={name}"], f"{file}.cpp"
            )
            for name, isa in {"base": [], **(X86 if x86 else {})}.items()
            for file, how in SOURCES.items()
            if file in ONLY.get(name, SOURCES)
        }
        complaints = {unit: _finish(process) for unit, process in running.items()}
        failed = {name: why for (name, _), why in complaints.items() if why}
        if "base" in failed:
            raise RuntimeError(failed["base"])
        made = [(name, file) for name, file in running if name not in failed]
        # the library is told which of them it has
        has = [f"-DORGANICS_{name.upper()}" for name in dict(made) if name != "base"]
        headers = ["-isystem", str(Path(jaxlib.origin).parent / "include")]
        if why := _finish(start("library", ["-O2", *headers, *has], "library.cpp")):
            raise RuntimeError(why)
        units = ["library", *(f"{file}.{name}" for name, file in made)]
        objects = [str(folder / f"{unit}.o") for unit in units]
        built = folder / LIBRARY.name
        link = [*compiler, "-shared", "-pthread", *flags, "-o", str(built), *objects]
        if why := _finish(_start(link)):
            raise RuntimeError(why)
        built.replace(target)
    return [f"{name} was left out: {why}" for name, why in failed.items()]


def _compiler() -> list[str]:
    """The command that CXX names, which may be of several words, such as `ccache g++`."""
    try:
        words = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    except ValueError as error:
        raise RuntimeError(f"the variable CXX is no command: {error}") from error
    if shutil.which(words[0]) is None:
        raise RuntimeError(f"no C++ compiler {words[0]!r} was found; the variable CXX names one")
    return words


def _start(command: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def _finish(process: subprocess.Popen) -> str | None:
    """The compiler's complaint, in one line, if it failed."""
    lines = process.communicate()[1].splitlines()
    if process.returncode == 0:
        return None
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no reason"]
    return f"the compiler failed: {errors[0].strip()[:500]}"


if __name__ == "__main__":
    file, *more = sys.argv[1:]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    for left_out in compile_library(Path(__file__).parent, Path(file).resolve(), more):
        print(left_out)
