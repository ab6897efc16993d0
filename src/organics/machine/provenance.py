"""The versions and the machine that produced a result."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("organics", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def machine() -> dict[str, Any]:
    """Processor, number of cores, operating system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "platform": system()}


def system() -> str:
    """Operating system and architecture."""
    return f"{platform.system()} {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
