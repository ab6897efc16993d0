import json
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import jax
import numpy as np
import pytest

from organics import cli
from organics.linear_stability.verification import Verification
from organics.studies.ours import demo

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo with fewer epochs: its folder, its exit code, its output, and the results."""
    folder, compute, results = tmp_path_factory.mktemp("demo"), demo.compute, []

    def short(config, out):
        results.append(compute(replace(config, epochs=2), out, progress=False))
        return results[-1]

    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as said,
        jax.numpy_dtype_promotion("standard"),
    ):
        patch.setattr(demo, "compute", short)
        code = cli.run(["demo", "--quick", "--out", str(folder), "--check", "--json"])
    (result,) = results
    return folder, code, said.getvalue(), result


def test_demo_trains_certifies_and_draws(made):
    folder, _, said, result = made
    assert [proof.holds.shape for proof in result.proofs] == [(297,), (297,)]
    for proof in result.proofs:
        assert proof.holds.all() and proof.margin.dtype == np.float64
        assert np.all((proof.margin > 0) & (proof.margin <= 1 + 1e-12))
        assert np.all(proof.abscissa < 0)
    assert result.verified == 40
    energy = np.asarray(result.energy)
    assert energy[-1] < 1e-3 * energy[0] and np.all(energy >= 0)
    pictures = sorted(folder.glob("*.png"))
    assert sorted(json.loads(said)["pictures"]) == list(map(str, pictures)) and len(pictures) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_demo_as_a_command(made):
    folder, code, said, _ = made
    found = json.loads(said)
    assert code == 0
    assert [layer["certified"] for layer in found["layers"]] == [297, 297]
    assert json.loads((folder / "demo.json").read_text()) == found
    assert 0.1 < found["report"]["test_accuracy"] <= 1


def test_a_bad_certificate_stops_the_demo(made, monkeypatch):
    folder, _, _, result = made
    # so that the run is found complete, and is not done again
    monkeypatch.setattr(demo, "_clear_if_complete", lambda *_: None)
    monkeypatch.setattr(demo, "verify", lambda *_: Verification(False, -1.0, ("made up",)))
    with pytest.raises(ArithmeticError, match="made up"):
        demo.compute(demo.Demo(epochs=result.report.epochs), folder, progress=False)
