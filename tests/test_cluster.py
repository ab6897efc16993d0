"""Calls, targets and trainings on a cluster, while one of its workers is killed."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import pytest
from processes import deadly, refuse, slowly
from workers import workers

from organics import cli
from organics.machine.cluster import Cluster, chosen
from organics.machine.side_by_side import side_by_side
from organics.studies.catalog import named
from organics.studies.harness.runner import reproduce
from organics.studies.networks.static import Networks, train_all


@pytest.fixture
def dask(tmp_path):
    """Two workers, and a folder for their files."""
    pytest.importorskip("distributed")
    with workers(tmp_path) as two:
        yield two


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """Two workers for tests that let them live."""
    pytest.importorskip("distributed")
    with workers(tmp_path_factory.mktemp("lasting")) as two:
        yield two


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "left").mkdir()
    return tmp_path / "left"


def texts(folder):
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def test_what_a_killed_worker_had_is_made_by_the_other(dask, tmp_path, folder):
    def begun():
        return any(folder.glob(f"begun-*-{dask.pids[0]}"))

    killed, calls = dask.pids[0], range(8)
    cluster = Cluster("dask", dask.address)
    with dask.one_killed(begun):
        side_by_side(slowly, [(folder, i) for i in calls], cluster=cluster)
    (alone := tmp_path / "alone").mkdir()
    side_by_side(slowly, [(alone, i) for i in calls], processes=1)
    assert texts(folder) == texts(alone) and len(texts(folder)) == len(calls)
    made = [path.name.split("-")[1:] for path in folder.glob("begun-*")]
    lost = {number for number, pid in made if pid == str(killed)}
    again = {number for number, pid in made if pid == str(dask.pids[0])}
    assert len(dask.pids) == 1 and lost & again and lost | again == {str(i) for i in calls}


def test_a_call_that_kills_its_workers_is_given_up_and_told(tmp_path, folder):
    distributed = pytest.importorskip("distributed")
    with workers(tmp_path, failures=1) as two, pytest.raises(distributed.KilledWorker):
        side_by_side(deadly, [(folder, 1)], cluster=Cluster("dask", two.address))
    assert len(list(folder.glob("begun-1-*"))) == 2


def test_a_cluster_tells_the_command_line_what_it_finds(lasting, capsys):
    command = ["stability", "--n", "2", "--trials", "4100", "--identity", "--json"]
    said = []
    for flags in ([], ["--backend", "dask", "--scheduler", lasting.address]):
        assert cli.run([*command, *flags]) == 0
        said.append(json.loads(capsys.readouterr().out))
    here, there = ({**answer, "largest_spectral_abscissa": 0} for answer in said)
    assert here == there and here["stable"] == 4100


def test_a_failure_on_a_cluster_is_told_and_what_has_not_begun_never_does(dask, folder):
    calls = [(folder, name) for name in ("bad", "long", "never", "neither")]
    with pytest.raises(ValueError, match="this one is bad"):
        side_by_side(refuse, calls, cluster=Cluster("dask", dask.address))
    assert not (folder / "neither").exists()


def test_a_client_that_there_is_already_is_used_and_kept(lasting, folder):
    from distributed import Client

    with Client(lasting.address) as client:
        side_by_side(slowly, [(folder, 3)], cluster=Cluster("dask"))
        assert client.status == "running" and texts(folder) == {"3.txt": "9"}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_targets_made_by_a_cluster_are_those_made_here(dask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the workers are is not where they are to write
    targets = named(("table4", "table7", "gradients"))
    progress = threading.Event()  # the first is of a worker
    with jax.enable_x64(False):
        here = reproduce(targets, Path("here"), quick=True)
        cluster = Cluster("dask", dask.address)
        with dask.one_killed(progress.is_set):
            there = reproduce(
                targets, Path("there"), quick=True, cluster=cluster,
                on_progress=lambda *_: progress.set(),
            )  # fmt: skip
    assert len(dask.pids) == 1
    for one, other in zip(here, there, strict=True):
        assert one.error is None and other.error is None
        assert Path(f"there/{one.target.name}.png").exists()
        assert one.document | {"seconds": 0} == other.document | {"seconds": 0}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_networks_trained_by_a_cluster_are_those_trained_here(dask, tmp_path):
    def begun(networks, backend):
        return backend == "dask" and any(networks.out.glob("*/metrics.jsonl"))

    found = []
    for backend in ("processes", "dask"):
        networks = Networks(
            out=tmp_path / backend,
            dataset="digits",
            models=("mlp",),
            sizes=2,
            seeds=(0,),
            epochs=20,
            batch_size=135,  # divides the number of images: one size of batch to compile for
            stability=None,
        )
        cluster = Cluster("dask", dask.address) if backend == "dask" else None
        connected = cluster.connected() if cluster else nullcontext()
        # as the workers have it
        killed = dask.one_killed(partial(begun, networks, backend))
        with jax.enable_x64(False), connected as submit, killed:
            rows = train_all(networks, submit=submit)["rows"]
        for row in rows:
            del row["seconds_per_epoch"]
        found.append(rows)
    assert len(dask.pids) == 1 and found[0] == found[1]


@pytest.mark.slow
def test_a_cluster_of_ray_makes_calls_again_too(folder):
    pytest.importorskip("ray")
    program = (
        "import sys; from pathlib import Path; import ray; "
        "from organics.machine.cluster import Cluster; "
        "from organics.machine.side_by_side import side_by_side; "
        "from processes import deadly, slowly; folder = Path(sys.argv[1]); "
        "ray.init(num_cpus=2, include_dashboard=False); "
        "side_by_side(slowly, [(folder, i) for i in range(3)], cluster=Cluster('ray')); "
        "side_by_side(deadly, [(folder, 1)], cluster=Cluster('ray'))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert texts(folder) == {f"{i}.txt": str(i**2) for i in range(3)}
    assert "WorkerCrashedError" in done.stderr
    assert len(list(folder.glob("begun-1-*"))) > 2


@pytest.mark.parametrize("backend, package", [("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_missing_is_named(monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"`backend` '{backend}' needs the package {package}: pip"):
        Cluster(backend).check()


def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="`scheduler` must be given, or `DASK_SCHEDULER_ADDRESS`"):
        Cluster("dask").check()
    for address in ("nonsense", "host:port", ":80"):
        with pytest.raises(ValueError, match=f"`scheduler` must be HOST:PORT .*, not '{address}'"):
            Cluster("dask", address).check()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        out = tmp_path / "out"
        with pytest.raises(ValueError, match=f"`scheduler` {address}: nobody listens there"):
            reproduce([], out, cluster=Cluster("dask", address))
        assert not out.exists()
    with workers(tmp_path, count=0) as none, pytest.raises(ValueError, match="it has no worker"):
        Cluster("dask", none.address).check()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--scheduler", "tcp://127.0.0.1:1"], ["`scheduler`", "'dask' or 'ray'", "'processes'"]),
        (["--backend", "dask", "--processes", "2"], ["`processes`", "'dask'"]),
    ],
)
def test_flags_that_do_not_fit_are_refused(capsys, tmp_path, flags, words):
    arguments = ["reproduce", "fig1", "--out", str(tmp_path / "out"), *flags]
    assert cli.run(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words) and not (tmp_path / "out").exists()


def test_what_is_no_backend_is_refused():
    assert chosen("processes", None, 2) is None
    with pytest.raises(ValueError, match="`backend` must be 'dask' or 'ray', not 'slurm'"):
        chosen("slurm", None, None)
