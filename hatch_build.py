"""Builds the native kernel when the package is installed; without a compiler, installs without it.

One file of kernels is compiled for several instruction sets, and the library chooses among them
when it is loaded, so a wheel runs on any processor of its architecture.

    python hatch_build.py FILE [FLAG ...]

builds it as FILE with further flags for the compiler, such as those of the sanitizers.
"""

import importlib.util
import os
import platform
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
COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-DNDEBUG"]
KERNEL = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
X86 = {
    "base": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls before it packs the wheel (or links an editable install)."""

    def initialize(self, version, build_data):
        """Compile, and say that the wheel belongs to this platform; or say why not."""
        del version
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        (root / LIBRARY).unlink(missing_ok=True)
        try:
            compile_library(root, root / LIBRARY)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", "") or ""
            self.app.display_warning(f"organics: no native kernel ({error}) {output[-2000:]}")
            return
        build_data["artifacts"].append(str(LIBRARY))
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def compile_library(root: Path, target: Path, flags: Sequence[str] = ()) -> None:
    """Build the library from the sources below `root` and put it at `target`.

    Raises `RuntimeError` if a tool or a header is lacking, or if the compiler fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise RuntimeError("no C++ compiler was found; the variable CXX names one")
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        raise RuntimeError("jaxlib, whose headers are needed, is not installed")
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    source = root / FOLDER / "cpp"
    headers = ["-isystem", str(Path(jaxlib.origin).parent / "include")]
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary)
        library = ["-O2", *headers, *(["-DORGANICS_X86"] if x86 else []), source / "library.cpp"]
        units = {"library": library}
        for name, isa in (X86 if x86 else {"base": []}).items():
            units[name] = [*KERNEL, *isa, f"-DORGANICS_ISA={name}", source / "sequence.cpp"]
        running = [
            subprocess.Popen(
                [compiler, *COMMON, *map(str, unit), *flags, "-c", "-o", str(folder / f"{name}.o")],
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, unit in units.items()
        ]
        failures = [output for process in running if (output := _finish(process)) is not None]
        if failures:
            raise RuntimeError(f"the compiler failed: {failures[0][-2000:]}")
        objects = [str(folder / f"{name}.o") for name in units]
        built = folder / LIBRARY.name
        subprocess.run(
            [compiler, "-shared", "-pthread", *flags, "-o", str(built), *objects],
            check=True,
            capture_output=True,
            text=True,
        )
        built.replace(target)


def _finish(process: subprocess.Popen) -> str | None:
    """The compiler's complaint, if it failed."""
    output = process.communicate()[1]
    return output if process.returncode else None


if __name__ == "__main__":
    file, *more = sys.argv[1:]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    compile_library(Path(__file__).parent, Path(file).resolve(), more)
