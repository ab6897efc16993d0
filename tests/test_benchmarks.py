"""The benchmarks: what they refuse, and how they keep their time. Numbers are in `results`."""

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import benchmarks.__main__ as everything
import pytest
from benchmarks import reproduction
from benchmarks.__main__ import Estimate, main, share
from benchmarks._agenda import LEAST, Agenda, Measurement
from benchmarks._clock import Clock
from benchmarks._common import command, conclude, spread
from hypothesis import given
from hypothesis import strategies as st
from processes import running, wait_for

ROOT = Path(__file__).parent.parent


class Toytime(Clock):
    """Seconds that pass only when they are spent."""

    def __init__(self):
        self.time = 100.0
        self.rings = []

    def now(self) -> float:
        return self.time

    @contextmanager
    def alarm(self, seconds, ring):
        self.rings = [(self.time + seconds, ring)]
        yield
        self.rings = []

    def spend(self, seconds: float) -> None:
        end = self.time + seconds
        for when, ring in self.rings:
            if when < end:
                self.time, self.rings = when, []
                ring()
        self.time = end


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def toy(clock: Toytime, agenda: Agenda, what: str, before: float, each: float, pace: float = 1.0):
    """A measurement that takes `pace` times as long as stated and returns its number of rounds."""

    def take():
        clock.spend(pace * before)
        rounds = 0
        for _ in agenda.rounds():
            clock.spend(pace * each)
            rounds += 1
        return rounds

    return Measurement(what, before, each, take)


def begin(**settings):
    clock, stream = Toytime(), settings.pop("stream", io.StringIO())
    agenda = Agenda("toys", settings.pop("rounds", 8), clock=clock, stream=stream, **settings)
    return agenda, partial(toy, clock, agenda), stream


# ---- one benchmark -------------------------------------------------------------------------------


def test_without_a_limit_everything_is_measured_in_all_rounds():
    agenda, toy, _ = begin()
    assert agenda.take([toy("a", 1, 2), toy("b", 3, 4)]) == {"a": 8, "b": 8}
    assert agenda.seconds() == 1 + 3 + 8 * (2 + 4) and not agenda.left_out and agenda.measured
    quick, toy, _ = begin(quick=True)
    assert quick.take([toy("a", 1, 2)]) == {"a": 2}


def test_with_little_time_there_are_fewer_rounds_then_fewer_measurements():
    for seconds, found in (
        (42, {"a": 8, "b": 8, "c": 8}),
        (41, {"a": 8, "b": 8, "c": 7}),
        (30, {"a": 8, "b": 5, "c": 5}),  # more rounds only of what the others do not need
        (28, {"a": 6, "b": 5, "c": 5}),
        (27, {"a": 5, "b": 5, "c": 5}),
        (26, {"a": 8, "b": 5}),
        (17, {"a": 8, "c": 8}),  # a large one is passed over
        (10, {"a": 8}),
        (5, {"c": 5}),
        (4, {}),
    ):
        agenda, toy, _ = begin(seconds=seconds)
        plan = [toy("a", 1, 1), toy("b", 1, 3), toy("c", 0, 1)]
        assert agenda.take(plan) == found, seconds
        assert agenda.seconds() <= seconds and agenda.measured == bool(found)
        missing = [one.what for one in plan if one.what not in found]
        assert agenda.left_out == [{"what": what, "why": "no time"} for what in missing]


costs = st.floats(0, 20)


@given(
    plan=st.lists(st.tuples(costs, costs), min_size=1, max_size=6),
    paces=st.lists(st.floats(0.2, 5), min_size=6, max_size=6),
    rounds=st.integers(LEAST, 12),
    seconds=st.floats(0.1, 300),
)
def test_no_median_is_of_few_rounds_and_no_limit_is_passed(plan, paces, rounds, seconds):
    """However wrong the estimates are. Only a measurement with its median may finish its round."""
    agenda, toy, _ = begin(rounds=rounds, seconds=seconds)
    cases = [toy(str(i), *plan[i], paces[i]) for i in range(len(plan))]
    found = agenda.take(cases)
    assert all(LEAST <= done <= rounds for done in found.values())
    assert found.keys() | {one["what"] for one in agenda.left_out} == {one.what for one in cases}
    assert len(found) + len(agenda.left_out) == len(plan)
    assert agenda.seconds() <= seconds + 1e-9


def test_what_is_under_way_at_the_limit_is_broken_off_unless_it_has_its_median():
    for slow, found in ((4, {}), (5, {"it": 6})):  # the fifth round, the sixth
        clock = Toytime()
        agenda = Agenda("toys", 8, seconds=7, clock=clock, stream=io.StringIO())

        def take(slow=slow, clock=clock, rounds=agenda.rounds):
            for done in rounds():
                clock.spend(10 if done == slow else 1)
            return done + 1

        assert agenda.take([Measurement("it", 0, 1, take)]) == found
        assert agenda.seconds() == (15 if found else 7)


def test_by_the_clock_of_the_machine_it_is_broken_off_too():
    agenda = Agenda("toys", 5, seconds=0.1, stream=io.StringIO())
    assert agenda.take([Measurement("sleep", 0, 0, lambda: time.sleep(60))]) == {}
    assert agenda.left_out == [{"what": "sleep", "why": "no time"}]


def test_a_slow_machine_is_noticed():
    """A measurement that would take too long at the pace so far is not begun."""
    agenda, toy, _ = begin(seconds=100)
    assert agenda.take([toy("a", 0, 1, 5), toy("b", 0, 4, 5)]) == {"a": 8}
    assert agenda.seconds() == 40


def test_an_error_is_not_taken_for_want_of_time():
    agenda, *_ = begin(stream=Terminal())
    with pytest.raises(ZeroDivisionError):
        agenda.take([Measurement("a", 0, 0, lambda: 1 // 0)])
    assert not agenda.left_out and not agenda.measured


def test_what_makes_no_sense_is_refused():
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match=f"`seconds` must be positive and finite, not {seconds}"
        ):
            begin(seconds=seconds)
    with pytest.raises(ValueError, match="`rounds` must be at least 5, for a median, not 4"):
        begin(rounds=4)


def test_progress_is_a_line_for_each_measurement_and_in_a_terminal_one_line():
    agenda, toy, stream = begin(seconds=30)
    agenda.take([toy("a", 1, 1), toy("b", 100, 1), toy("c", 0, 1)])
    assert stream.getvalue().splitlines() == [
        "toys 1 of 3: a; 0 s of about 30 s",
        "toys: b: left out: no time",
        "toys 3 of 3: c; 9 s of about 17 s",
    ]
    agenda, toy, stream = begin(stream=Terminal())
    agenda.take([toy("a", 1, 1), toy("b", 0, 2)])
    shown = [line.rstrip() for line in stream.getvalue().split("\r") if line.strip()]
    assert shown[:2] == [
        "toys 1 of 2: a; 0 s of about 25 s",
        "toys 1 of 2: a, round 1 of 8; 1 s of about 25 s",
    ]
    assert shown[-1] == "toys 2 of 2: b, round 8 of 8; 23 s of about 25 s"
    assert "\n" not in stream.getvalue() and max(map(len, stream.getvalue().split("\r"))) < 80


def test_a_file_is_written_whole_or_left_as_it_is(tmp_path):
    out = tmp_path / "new" / "toys.json"
    agenda, toy, _ = begin(seconds=20)
    found = agenda.take([toy("a", 1, 1), toy("b", 50, 1)])
    result = conclude(agenda, "the command", found, out)
    assert json.loads(out.read_text()) == result and [*out.parent.iterdir()] == [out]
    assert result["left_out"] == [{"what": "b", "why": "no time"}] and result["seconds"] == 9
    assert result["command"] == "the command" and result["machine"]["processor"]
    agenda, toy, _ = begin(seconds=2)
    conclude(agenda, "another", agenda.take([toy("a", 1, 1)]), out)
    assert json.loads(out.read_text()) == result


def test_the_command_has_the_options_that_were_given():
    options = {"quick": False, "full": True, "seconds": 2.5, "units": (64, 128), "steps": None}
    said = command("recurrence", **options, without_torch=True)
    assert said == (
        "python -m benchmarks.recurrence --full --seconds 2.5 --units 64 128 --without-torch"
    )


def test_results_that_are_kept_are_medians_and_say_whose():
    def spreads(value):
        if isinstance(value, dict) and "median" in value:
            yield value
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                yield from spreads(item)

    files = sorted((ROOT / "results").glob("benchmark_*.json"))
    names = {file.stem.removeprefix("benchmark_") for file in files}
    assert set(everything.BENCHMARKS) <= names
    for file in files:
        result = json.loads(file.read_text())
        name = result["benchmark"]  # and perhaps again with other instructions
        kept = (f"benchmark_{name}", f"benchmark_{name}_{result.get('instruction_set')}")
        assert name in everything.BENCHMARKS and file.stem in kept
        assert result["command"].startswith(f"python -m benchmarks.{result['benchmark']}")
        assert result["machine"]["processor"] and result["machine"]["versions"]["jax"]
        found = list(spreads(result))
        assert found and all(len(one["runs"]) >= LEAST for one in found)
        again = [spread(one["runs"]) for one in found]
        for one, other in zip(found, again, strict=True):
            assert one["min"] <= one["median"] <= one["max"]
            # of values rounded to 4 digits; an even number of them is averaged
            assert one["median"] == pytest.approx(other["median"], abs=1.1e-4)


# ---- all of them ---------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.floats(1, 500), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0.1, 1000),
)
def test_shares_of_the_time_are_no_more_than_there_is(costs, limit):
    rest = [Estimate("", seconds, part * seconds, 1) for seconds, part in costs]
    left = limit
    while rest:
        seconds = share(rest, left)
        assert seconds == 0 or rest[0].least <= seconds <= left
        assert seconds or rest[0].least > left
        left -= seconds
        rest = rest[1:]
    assert left >= 0


def test_without_a_limit_every_share_is_unlimited():
    assert share([Estimate("", 1, 1, 1), Estimate("", 5, 1, 1)], float("inf")) == float("inf")


TOYS = {
    "done": """
        from benchmarks._agenda import Agenda, Measurement
        from benchmarks._common import conclude, spread, time_in_turn

        def run(out=None, quick=False, seconds=None):
            agenda = Agenda("done", 5, quick=quick, seconds=seconds)
            take = lambda: spread(time_in_turn({"it": int}, agenda.rounds())["it"])
            found = agenda.take([Measurement("nothing", 0, 0, take)])
            return conclude(agenda, f"done in {seconds}", found, out)
        """,
    "fails": """
        def run(out=None, quick=False, seconds=None):
            raise RuntimeError("this one fails")
        """,
    "stuck": """
        import os, time
        from organics.machine.side_by_side import apart

        def stay(folder):
            (folder / str(os.getpid())).touch()
            time.sleep(600)

        def run(out=None, quick=False, seconds=None):
            (out.parent / "pids" / str(os.getpid())).touch()
            apart(stay, out.parent / "pids")
        """,
}


@pytest.fixture
def toys(tmp_path_factory):
    """A folder with a module for each of `TOYS`, and their estimates."""
    folder = tmp_path_factory.mktemp("toys")
    for name, code in TOYS.items():
        (folder / f"toy_{name}.py").write_text(textwrap.dedent(code))
    return folder, {name: Estimate(f"toy_{name}", 5, 1, 1) for name in TOYS}


def test_one_that_fails_or_has_no_time_does_not_stop_the_others(toys, tmp_path, monkeypatch, capfd):
    folder, estimates = toys
    large = {"large": Estimate("toy_large", 1000, 900, 1)}
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(everything, "BENCHMARKS", estimates | large)
    words = ["--json", "--seconds", "100", "--out", str(tmp_path)]
    assert main([*words, "--only", "large", "fails", "done"]) == 1
    out, err = capfd.readouterr()
    results = json.loads(out)["benchmarks"]
    assert list(results) == ["large", "fails", "done"]
    assert results["large"]["left_out"] == [{"what": "all of it", "why": "no time"}]
    assert results["fails"]["error"] == "RuntimeError: this one fails"
    assert [file.name for file in tmp_path.iterdir()] == ["benchmark_done.json"]
    assert json.loads((tmp_path / "benchmark_done.json").read_text()) == results["done"]
    assert 0 < float(results["done"]["command"].removeprefix("done in ")) <= 100
    assert len(results["done"]["nothing"]["runs"]) == 5
    told = err.splitlines()
    assert "large: left out: no time" in told and "fails: failed" in told
    assert any(line.startswith("done, 3 of 3: about 5 s; ") for line in told)
    assert any(line.startswith("done 1 of 1: nothing; ") for line in told)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--only"], "none is named; there are startup, "),
        (["--only", "startup", "nothing"], "there is no nothing; there are startup, "),
        (["--seconds", "0"], "`seconds` must be positive and finite, not 0"),
        (["--seconds", "nan"], "`seconds` must be positive and finite, not nan"),
        (["--quick", "--full"], "not both"),
        (["--out", __file__], "File exists"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_any_work(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and message in err and len(err.splitlines()) == 1


def test_stopped_it_leaves_what_is_finished_and_no_process(toys, tmp_path):
    """Stopped by Ctrl-C, by a polite signal to the first process alone, or by a kill."""
    folder, estimates = toys
    code = (
        "import signal, sys; import benchmarks.__main__ as all; from benchmarks.__main__ import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever starts the tests
        f"all.BENCHMARKS = {{name: Estimate(*e) for name, e in {estimates!r}.items()}}\n"
        "sys.exit(main(['--only', 'done', 'stuck', '--out', sys.argv[1]]))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "src"), str(folder)])
    first, pids = {}, {}
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        (tmp_path / stop.name / "pids").mkdir(parents=True)
        first[stop] = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / stop.name)],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    for stop in first:
        look = (tmp_path / stop.name / "pids").iterdir
        pids[stop] = wait_for(lambda look=look: [int(file.name) for file in look()], 2)
        first[stop].send_signal(stop)
    for stop, process in first.items():
        _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if stop is signal.SIGINT else -stop)
        assert ("benchmarks: interrupted." in err.splitlines()) == (stop is signal.SIGINT)
        wait_for(lambda pids=pids[stop]: [pid for pid in pids if not running(pid)], 2)
        left = [path.name for path in (tmp_path / stop.name).iterdir() if path.name != "pids"]
        assert left == ["benchmark_done.json"]
        assert json.loads((tmp_path / stop.name / left[0]).read_text())["benchmark"] == "done"


@pytest.mark.parametrize("name", sorted(everything.BENCHMARKS.keys() - {"recurrence"}))
def test_a_benchmark_can_begin(name):
    """Each but the one that needs PyTorch."""
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_a_result_is_not_replaced_by_one_without_the_peers(tmp_path):
    """In a separate process, which finds no PyTorch even if it is installed."""
    out = tmp_path / "benchmark_recurrence.json"
    out.write_text("measured with peers")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from benchmarks.recurrence import run\n"
        f"run(Path({str(out)!r}), quick=True)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 1 and "PyTorch's times" in ran.stderr.splitlines()[-1]
    assert out.read_text() == "measured with peers"


def test_a_gpu_is_asked_for_and_products_on_a_cpu_are_of_float32():
    """In a separate process, which finds no PyTorch even if it is installed."""
    code = (
        "import json, sys; sys.modules['torch'] = None\n"
        "from benchmarks import gpu\n"
        "from benchmarks._agenda import Agenda, Measurement\n"
        "agenda = Agenda('gpu', 5, quick=True)\n"
        "take = lambda: gpu._products(agenda, 64)\n"
        "print(json.dumps(agenda.take([Measurement('products', 1, 1, take)])['products']))\n"
        "gpu.run()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "JAX finds no GPU, only cpu" in ran.stderr.splitlines()[-1]
    found = json.loads(ran.stdout)
    assert not found["default_is_rounded"]
    assert all(1e-9 < error < 1e-6 for error in found["errors"].values())


def test_the_time_of_all_targets_is_noted_with_their_verdicts(tmp_path, monkeypatch):
    said = []

    def command(words, **options):
        del options
        said.append(words)
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True)
        document = {"name": "fig1", "seconds": 2.0, "verdict": "holds", "here": "1", "more": 0}
        (out / "fig1.json").write_text(json.dumps(document))
        answer = json.dumps({"targets": [{"name": "fig1"}]})
        return subprocess.CompletedProcess(words, len(said) - 1, stdout=answer)

    monkeypatch.setattr(subprocess, "run", command)
    file = tmp_path / "reproduction.json"
    found = reproduction.run(file, quick=True, trained=tmp_path, folder=tmp_path / "new")
    assert said[0][2:7] == ["organics", "reproduce", "--all", "--json", "--quick"]
    assert found["made"] == [{"name": "fig1", "seconds": 2.0, "verdict": "holds", "here": "1"}]
    assert json.loads(file.read_text())["minutes"] == found["minutes"] < 1
    with pytest.raises(ValueError, match="`folder` must be new"):
        reproduction.run(folder=tmp_path / "new")
    with pytest.raises(ValueError, match=r"`organics reproduce --all .* failed with exit code 1"):
        reproduction.run(file)
