"""How XLA compiles in the tests, where most of the time goes into small programs that run once.

One thread for each worker: they run side by side, and on few cores XLA's pool of threads can come
to a standstill when two batches of LAPACK calls meet in it. Programs are hardly optimised, and not
by the newer emitters, which take thrice as long.
"""

import mmap
from importlib.util import find_spec
from pathlib import Path

FLAGS = {
    "xla_force_host_platform_device_count": "2",
    "xla_cpu_multi_thread_eigen": "false",
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def quick_to_compile() -> str:
    """For `XLA_FLAGS`: those that this version knows, as it aborts at others."""
    (library,) = Path(find_spec("jaxlib").origin).parent.glob("libjax_common.*")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
        known = [flag for flag in FLAGS if code.find(flag.encode()) >= 0]
    return " ".join(f"--{flag}={FLAGS[flag]}" for flag in known)


if __name__ == "__main__":
    print(quick_to_compile())
