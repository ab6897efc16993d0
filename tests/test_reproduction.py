"""Running toy targets, the page of results, and the table of claims."""

import json
import os
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from processes import deadly, slowly

from organics import cli
from organics.machine.side_by_side import call_each
from organics.studies import catalog
from organics.studies.harness import claims, pieces, report, runner
from organics.studies.harness.runner import reproduce
from organics.studies.harness.target import Check, Outcome, Table, Target


def target(name):
    return Target(name, f"The {name}", "That <all> is | well.", "Figure 0", 0.1, "98 %")


TOY, BROKEN = target("toy"), target("broken")
ALONE = ("--quiet", "--processes", "1")  # another process would not know them


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Two targets: one answers and counts its calls, one fails."""
    jobs = []

    def compute(job):
        jobs.append(job)
        job.progress(0.5, "half of it")
        assert job.seed != 99, "on purpose"
        checks = [Check("it is large", "3", True, "3", "1 %"), Check("it is > 1", "3", job.quick)]
        left = {"the rest": {"hours": 1.5, "command": "organics train it"}}
        numbers = {"not_run": left, "x": np.arange(3.0), "z": 1 + 2j, "bad": float("nan")}
        job.folder.mkdir(parents=True, exist_ok=True)
        jobs[-1] = job, list(job.folder.iterdir())
        (job.folder / "piece").touch()
        return Outcome("3 of 3", checks, numbers, Table(("a", "b"), [("1", "<2>")]))

    def draw(outcome):
        """The numbers,
        as a line."""
        figure = Figure()
        figure.add_subplot().plot(outcome.numbers["x"])
        return figure

    def fail(_):
        raise ArithmeticError("it went wrong")

    for name, function in (("toy", compute), ("broken", fail)):
        module = SimpleNamespace(compute=function, draw=draw)
        monkeypatch.setitem(sys.modules, f"organics.studies.paper.{name}", module)
    for module in (catalog, claims, report):
        monkeypatch.setattr(module, "TARGETS", (BROKEN, TOY))
    monkeypatch.setattr(catalog, "PAPER", (BROKEN, TOY))
    return jobs


def test_a_target_leaves_its_files_and_is_not_run_again(tmp_path, modules):
    seen = []
    (first,) = reproduce([TOY], tmp_path, on_progress=lambda *told: seen.append(told))
    assert seen == [(TOY, 0.5, "half of it")]
    written = json.loads((tmp_path / "toy.json").read_text())
    assert written == first.document and not first.kept
    assert written["verdict"] == "partly" and written["numbers"]["z"] == [1, 2]
    assert written["caption"] == "The numbers, as a line."
    assert written["numbers"]["bad"] is None and written["command"] == "organics reproduce toy"
    assert {"python", "jax"} <= written["versions"].keys() and written["machine"]["cores"] >= 1
    assert (tmp_path / "toy.svg").stat().st_size and (tmp_path / "toy.png").stat().st_size
    # a whole result answers a quick question, but not one of another seed
    assert reproduce([TOY], tmp_path, quick=True)[0].kept and len(modules) == 1
    assert not reproduce([TOY], tmp_path, seed=1)[0].kept and len(modules) == 2
    assert not reproduce([TOY], tmp_path, seed=1, force=True)[0].kept and len(modules) == 3
    assert not modules[-1][1]  # of what was kept while it was under way
    assert not reproduce([TOY], tmp_path, seed=1, quick=True, force=True)[0].kept
    assert not reproduce([TOY], tmp_path, seed=1)[0].kept  # but a quick one no whole question
    (tmp_path / "toy.png").unlink()
    assert "toy.png is missing" in report.write(tmp_path).read_text()
    assert not reproduce([TOY], tmp_path, seed=1)[0].kept
    assert [path.name for path in modules[-1][1]] == ["piece"]
    (tmp_path / "toy.json").write_text("{}")  # of another version
    assert not reproduce([TOY], tmp_path, seed=1)[0].kept
    looks = replace(TOY, looks_for_runs=True)
    assert not reproduce([looks], tmp_path, seed=1)[0].kept


def test_the_seconds_of_an_interrupted_target_are_those_of_all_its_pieces(tmp_path, monkeypatch):
    starts = iter([True, False, False, False, False])

    def compute(job):
        first = pieces.kept(job.folder, "first", lambda: {"x": np.arange(2)})
        if next(starts):
            raise ArithmeticError("interrupted")
        second = pieces.kept_document(job.folder / "more" / "second.json", lambda: {"y": 3})
        return Outcome("", (), {"x": first["x"], **second})

    module = SimpleNamespace(compute=compute, draw=lambda _: Figure())
    monkeypatch.setitem(sys.modules, "organics.studies.paper.toy", module)
    assert reproduce([TOY], tmp_path)[0].error
    (noted,) = tmp_path.rglob("first.npz.seconds")
    assert float(noted.read_text()) >= 0
    noted.write_text("1e6")  # as if it had taken that long
    (noted.parent / "gone.npz.seconds").write_text("1e9")  # killed before its piece was written
    document = reproduce([TOY], tmp_path)[0].document
    assert document["numbers"] == {"x": [0, 1], "y": 3} and 1e6 <= document["seconds"] < 1e9
    (tmp_path / "toy.png").unlink()
    assert reproduce([TOY], tmp_path)[0].document["seconds"] >= 1e6
    (tmp_path / "toy.png").unlink()
    noted.unlink()  # as of a piece that an older version wrote
    assert reproduce([TOY], tmp_path)[0].document["seconds"] is None
    assert reproduce([TOY], tmp_path, force=True)[0].document["seconds"] < 1e6


def test_a_failure_is_reported_and_the_others_go_on(tmp_path):
    broken, toy = reproduce([BROKEN, TOY], tmp_path, quick=True)
    assert broken.document is None and "it went wrong" in broken.error
    assert toy.document["verdict"] == "holds"
    assert not (tmp_path / "broken.json").exists()


@pytest.mark.usefixtures("standard_promotion")
def test_several_at_once_are_reported_like_one_after_another(tmp_path):
    # other processes have the real targets
    names = ("table4", "no_such_target", "table7")
    asked = [replace(target(name), network="one" if name == "table7" else None) for name in names]
    told, settled = [], []
    results = reproduce(
        asked, tmp_path, quick=True, processes=2,
        on_progress=lambda *what: told.append(what), on_result=settled.append,
    )  # fmt: skip
    assert [result.target.name for result in results] == list(names)
    assert sorted(settled, key=lambda r: names.index(r.target.name)) == results
    found, failed, other = results
    assert failed.document is None and "ModuleNotFoundError" in failed.error
    assert all(0 <= fraction <= 1 for _, fraction, _ in told)
    for result in (found, other):
        name = result.target.name
        assert result.error is None and not result.kept
        assert result.document == json.loads((tmp_path / f"{name}.json").read_text())
        (alone,) = reproduce([result.target], tmp_path / "alone", quick=True, processes=2)
        assert alone.error is None
        for document in (alone.document, result.document):
            del document["seconds"]
        assert alone.document == result.document
    assert all(result.kept for result in reproduce([asked[0], asked[2]], tmp_path, quick=True))


def test_pieces_run_in_the_processes_of_the_other_targets(tmp_path, monkeypatch):
    def in_pieces(name, function, numbers):
        def compute(job):
            (work := job.folder / "work").mkdir(parents=True)
            watch = lambda: job.progress(0.5, name)  # noqa: E731
            call_each(function, [(work, number) for number in numbers], job.submit, watch=watch)
            return Outcome("", (), {"made": sorted(path.name for path in work.glob("begun-*"))})

        module = SimpleNamespace(compute=compute, draw=lambda _: Figure())
        monkeypatch.setitem(sys.modules, f"organics.studies.paper.{name}", module)
        return replace(target(name), in_pieces=True)

    first, second = in_pieces("first", slowly, (2, 3, 4)), in_pieces("second", slowly, (5,))
    dies = in_pieces("dies", deadly, (1,))
    told = []
    results = reproduce(
        [target("table4"), first, second], tmp_path, processes=2,
        on_progress=lambda what, *_: told.append(what.name),
    )  # fmt: skip
    assert [result.error for result in results] == [None] * 3 and {"first", "second"} <= set(told)
    made = [name for result in results[1:] for name in result.document["numbers"]["made"]]
    numbers, pids = zip(*(name.split("-")[1:] for name in made), strict=True)
    assert numbers == ("2", "3", "4", "5") and 1 <= len(set(pids) - {str(os.getpid())}) <= 2
    failed, after = reproduce([dies, second], tmp_path, processes=2, force=True)
    assert "BrokenProcessPool" in failed.error and after.error is None
    here = reproduce([second], tmp_path, force=True)[0].document["numbers"]["made"]
    assert here == [f"begun-5-{os.getpid()}"]


def test_the_verdict_is_that_of_the_checks():
    def verdict(*answers):
        return Outcome("", [Check("", "", answer) for answer in answers], {}).verdict

    assert verdict(True, True) == "holds" and verdict(False, False) == "does not hold"
    assert verdict(True, False) == verdict(None, True) == verdict(False, None, True) == "partly"
    assert verdict() == verdict(None) == "not run"
    assert verdict(False, None) == "does not hold"

    trained = replace(TOY, trains=True)
    mixed = Outcome("", [Check("", "", True), Check("", "", False)], {})
    assert runner.verdict_of(mixed, trained, quick=True) == "undecided"
    assert runner.verdict_of(mixed, trained, quick=False) == "partly"
    assert runner.verdict_of(mixed, TOY, quick=True) == "partly"
    holds = Outcome("", [Check("", "", True)], {})
    assert runner.verdict_of(holds, trained, quick=True) == "holds"

    def besides(decides, answer):
        other = Check("", "", answer, decides=False)
        return Outcome("", [Check("", "", decides), other], {}).verdict

    assert besides(True, False) == "holds" and besides(False, True) == "does not hold"
    assert besides(None, True) == "not run"


class Reader(HTMLParser):
    """The references of a page, and whether its elements close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_needs_no_other_file(tmp_path):
    reproduce([TOY], tmp_path, quick=True)
    page = report.write(tmp_path).read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in reader.links)
    assert "http" not in page and "That &lt;all&gt; is | well." in page and "&lt;2&gt;" in page
    assert "holds (quick)" in page and "prefers-color-scheme: dark" in page


def test_the_table_of_claims_follows_the_results(tmp_path, monkeypatch):
    file = tmp_path / "README.md"
    file.write_text(f"before\n{claims.BEGIN}\nold\n{claims.END}\nafter\n")

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["claims", str(tmp_path), str(file), *options])
        claims.main()

    run()
    assert "| not run: about 0.1 minutes | not run |" in file.read_text()
    assert "Beyond the paper" not in file.read_text()
    run("--check")
    reproduce([TOY], tmp_path / "paper")
    with pytest.raises(SystemExit, match="results-table"):
        run("--check")
    run()
    text = file.read_text()
    assert (
        "| `toy` | That <all> is \\| well. | 98 % | 3 of 3 | partly; but not: it is > 1 |" in text
    )
    assert "Not run here" in text and "- the rest, about 1.5 h: `organics train it`" in text
    assert "minutes on" not in text
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    timed = {"minutes": 35.6, "machine": {"cores": 2, "processor": "a fast one"}}
    (tmp_path / "reproduction.json").write_text(json.dumps(timed))
    monkeypatch.setattr(claims, "TARGETS", (TOY, replace(TOY, name="own", room="ours")))
    run()
    assert "took 36 minutes on 2 cores of a fast one." in file.read_text()
    paper, own = file.read_text().split("## Beyond the paper")
    assert "`own`" in own and "`own`" not in paper and "`toy`" in paper
    file.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        run()


def test_the_command(tmp_path, capsys):
    def run(*arguments):
        code = cli.run(["reproduce", "--out", str(tmp_path / "paper"), *ALONE, *arguments])
        return code, capsys.readouterr()

    code, said = run("--list", "--json")
    assert code == 0 and [t["last"] for t in json.loads(said.out)["targets"]] == [None, None]
    code, said = run("--all", "--json")
    assert code == 1 and "broken failed: ArithmeticError: it went wrong" in said.err
    names = [t["name"] for t in json.loads(said.out)["targets"]]
    assert names == ["broken", "toy"] and (tmp_path / "paper" / "report.html").exists()
    code, said = run("toy")
    assert code == 0 and "partly, from before" in " ".join(said.out.split())
    assert run("toy", "--check")[0] == 1
    assert run("toy", "--check", "--quick", "--force")[0] == 0
    code, said = run("--list")
    assert code == 0 and "holds (quick)" in " ".join(said.out.split())
    assert run()[0] == 2 and run("toy", "--all")[0] == 2
    code, said = run("nothing")
    assert code == 2 and "broken, toy, not 'nothing'" in said.err.replace("must be among ", "")


def test_the_catalog_is_in_order_and_names_modules():
    targets = sys.modules["organics.studies.catalog"]
    folder = Path(targets.__file__).parent
    names = [line.split('"')[1] for line in Path(targets.__file__).read_text().splitlines()
             if line.strip().startswith('name="')]  # fmt: skip
    assert len(set(names)) == len(names)
    for name in names:
        own = name in {target.name for target in targets.OURS}
        assert (folder / ("ours" if own else "paper") / f"{name}.py").exists()
    assert {target.room for target in targets.OURS} == {"ours"}
    assert replace(TOY, minutes=1.0) != TOY
