"""The benchmarks: what they refuse. Their numbers are in `results`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_result_is_not_replaced_by_one_without_the_peers(tmp_path):
    """In a process of its own, which finds no PyTorch whether it is installed or not."""
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
