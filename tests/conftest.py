"""A strict world: 64-bit, no silent broadcasting or promotion, run-time checks of shapes."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

from xla_flags import quick_to_compile

os.environ["XLA_FLAGS"] = quick_to_compile(os.environ.get("XLA_FLAGS", ""))
# what another worker, a process that a test starts, or an earlier run has compiled is not compiled
# again; `make clean` removes it
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import lowering
import pytest
import type_checks
from hypothesis import HealthCheck, settings
from jaxtyping import config

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# every draw of a new size compiles again, so the time of one example says nothing
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
# the same examples every time, so that a failure is that of a change ...
settings.register_profile("organics", max_examples=20, derandomize=True, **_common)
# ... and with `--hypothesis-profile=explore`, always others
settings.register_profile("explore", max_examples=200, **_common)
settings.load_profile("organics")

pytest_plugins = ["compile_times"]

_hook = type_checks.install()
lowering.share_contexts()


def pytest_collection_finish():
    """Tracing makes so many objects that looking for cycles among them takes a tenth of the time.
    So look less often, and skip what the modules hold."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(400_000, 10, 10)


_PAGES = Path("/proc/self/statm")  # on Linux: the memory of this process, in pages
_MAPS = Path("/proc/self/maps")  # and the pieces of it
# bytes that a process has at the end of a file, from which on its programs do not stay
_MOST_MEMORY = max(1.8e9, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 8)
_MOST_MAPS = 30_000  # of 65,530 that it may have; each program that is compiled takes a few


@pytest.fixture(scope="module", autouse=True)
def _room_for_compiled_programs():
    yield
    if not _PAGES.exists():
        return
    memory = int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if memory > _MOST_MEMORY or _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        with contextlib.suppress(AttributeError, OSError):  # of glibc; else it is only used again
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session", autouse=True)
def _keep_hook():
    yield
    _hook.uninstall()


@pytest.fixture
def standard_promotion():
    """For training: Optax mixes types that strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def without_type_checks():
    """As for users: the library itself judges an argument, not the run-time checks."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
