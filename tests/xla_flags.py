"""How XLA compiles in the tests, where small programs that run once take most of the time.

One thread for each worker: they run side by side. On few cores XLA's pool of threads can come to
a standstill when two batches of LAPACK calls meet in it. Programs are hardly optimised, and not by
the newer emitters, which take three times as long.
"""

import os
import re
import subprocess
import sys

FLAGS = {
    "xla_force_host_platform_device_count": "2",
    "xla_cpu_multi_thread_eigen": "false",
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}

_START = "from jaxlib import xla_client; xla_client.make_cpu_client()"


def quick_to_compile(given: str = "") -> str:
    """For `XLA_FLAGS`: the flags `given`, and those of `FLAGS` that it does not set.

    XLA aborts at unknown flags. A process that starts with all of them shows which these are; they
    are left out, with a word on standard error.

    Raises `RuntimeError` if XLA does not start with the `given` flags either.
    """
    set_already = set(re.findall(r"--(\w+)", given))
    flags = {name: value for name, value in FLAGS.items() if name not in set_already}
    while flags:  # a worker is given them all, and does not look again
        text = " ".join([given, *(f"--{name}={value}" for name, value in flags.items())]).strip()
        unknown = _complaint(text)
        if unknown is None:
            return text
        gone = flags.keys() & set(re.findall(r"--(\w+)", unknown))
        if not gone:
            raise RuntimeError(f"XLA does not start with XLA_FLAGS={text!r}: {unknown}")
        print(f"This XLA has no {', '.join(gone)}: the tests may take longer.", file=sys.stderr)
        flags = {name: value for name, value in flags.items() if name not in gone}
    return given


def _complaint(flags: str) -> str | None:
    """The last line that XLA writes before it aborts; `None` if it starts with these flags."""
    environment = {**os.environ, "XLA_FLAGS": flags}
    started = subprocess.run(
        [sys.executable, "-c", _START], env=environment, capture_output=True, text=True, check=False
    )
    if started.returncode == 0:
        return None
    unknown = [line for line in started.stderr.splitlines() if "Unknown flag" in line]
    return (unknown or started.stderr.splitlines() or [f"exit {started.returncode}"])[-1]


if __name__ == "__main__":
    print(quick_to_compile(os.environ.get("XLA_FLAGS", "")))
