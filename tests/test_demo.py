import json

import numpy as np
import pytest

from organics import cli
from organics.experiments import demo

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_demo_trains_certifies_and_draws(tmp_path):
    result = demo.compute(demo.Demo(epochs=2), tmp_path, progress=False)
    assert [proof.holds.shape for proof in result.proofs] == [(297,), (297,)]
    for proof in result.proofs:
        assert proof.holds.all() and proof.margin.dtype == np.float64
        assert np.all((proof.margin > 0) & (proof.margin <= 1 + 1e-12))
        assert np.all(proof.abscissa < 0)
    assert result.verified == 40
    energy = np.asarray(result.energy)
    assert energy[-1] < 1e-3 * energy[0] and np.all(energy >= 0)
    pictures = demo.save(result, tmp_path)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_demo_as_a_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.Demo, "epochs", 2)
    code = cli.run(["demo", "--quick", "--out", str(tmp_path), "--check", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [layer["certified"] for layer in found["layers"]] == [297, 297]
    assert json.loads((tmp_path / "demo.json").read_text()) == found
    assert 0.1 < found["report"]["test_accuracy"] <= 1


def test_a_bad_certificate_stops_the_demo(tmp_path, monkeypatch):
    from organics.linear_stability import Verification

    monkeypatch.setattr(demo, "verify", lambda *_: Verification(False, -1.0, ("made up",)))
    with pytest.raises(ArithmeticError, match="made up"):
        demo.compute(demo.Demo(epochs=1), tmp_path, progress=False)
