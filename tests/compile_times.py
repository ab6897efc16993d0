"""`pytest --compile-times`: what each file's tests spend, and how much of it on compiling.

For each file: the processor's seconds for its tests, the seconds of tracing, lowering and compiling
(by the clock, so more on a busy machine), and the number of programs. Then the tests that took the
most. All processes are added up, those that tests start and wait for, too.
"""

import os
from collections import Counter

import jax.monitoring
import pytest

_PARTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
_TESTS = 25  # of which the most are listed

_spent = Counter()  # in this process, so far
_until = Counter()  # the processor's seconds at the last report
_of_tests: dict[str, Counter] = {}  # by the test's name, in the process that reports


def pytest_addoption(parser):
    parser.addoption("--compile-times", action="store_true", help=__doc__.splitlines()[0])


def pytest_configure(config):
    if config.getoption("compile_times"):
        jax.monitoring.register_event_duration_secs_listener(_count)


def _count(event: str, seconds: float, **_):
    if event in _PARTS:
        _spent[_PARTS[event]] += seconds
        _spent["programs"] += _PARTS[event] == "compile"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Called after each test's set-up, run and end: reports what was spent since the last call."""
    report = yield
    if item.config.getoption("compile_times"):
        seconds = sum(os.times()[:4])
        # the first report is not charged with the collection of all tests
        report.compile_times = {**_spent, "seconds": seconds - _until.get("seconds", seconds)}
        _until["seconds"] = seconds
        _spent.clear()
    return report


def pytest_runtest_logreport(report):
    # an attribute of a report travels from worker to controller
    if hasattr(report, "compile_times"):
        _of_tests.setdefault(report.nodeid, Counter()).update(report.compile_times)


def pytest_terminal_summary(terminalreporter):
    if not _of_tests:
        return
    of_files = {}
    for test, spent in _of_tests.items():
        of_files.setdefault(test.partition("::")[0], Counter()).update(spent)
    total = sum(of_files.values(), Counter())
    write = terminalreporter.write_line
    terminalreporter.section("processor seconds, seconds of compiling, and programs")
    for name, spent in [*_most(of_files), ("all", total), *_most(_of_tests)[:_TESTS]]:
        compiling = sum(spent[part] for part in _PARTS.values())
        write(f"{spent['seconds']:8.1f} {compiling:8.1f} {spent['programs']:6d}  {name}")


def _most(spent: dict[str, Counter]) -> list[tuple[str, Counter]]:
    return sorted(spent.items(), key=lambda item: -item[1]["seconds"])
