"""Frames per second of the explorer while a slider moves, in Chromium without a screen.

    python -m benchmarks.explorer [--quick] [--seconds N] [--out FILE]

In each frame the slider goes a little further, as under a finger. "empty" is a page that draws
nothing: what the browser and the load of the machine allow, at most 60. "work" is how long the page
is busy with a frame, in ms, from the slider's move until all is drawn; at 60 frames a second there
are 16.7. Without a screen there is no graphics processor: drawing takes more time than on a desk.
On a machine that others use, both say little. Needs Bokeh and Chromium.
"""

import json
import re
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FRAMES = 200
LONGEST = 60  # seconds, for a page
DRAG = """<script>
setTimeout(() => {
  const slider = document.getElementById("%s");
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const [times, work] = [[], []];
  const drawn = new MessageChannel(); // its messages come when the frame is drawn
  let begin;
  drawn.port1.onmessage = () => work.push(performance.now() - begin);
  function frame(now) {
    begin = performance.now();
    times.push(now);
    slider.value = low + (high - low) * (0.5 + 0.45 * Math.sin(times.length / 40));
    slider.dispatchEvent(new Event("input"));
    drawn.port2.postMessage(null);
    if (times.length <= %d) requestAnimationFrame(frame);
    else console.log("DRAGGED " + JSON.stringify({ times, work }));
  }
  requestAnimationFrame(frame);
}, 2000);
</script></body>"""


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Drag sliders of the explorer and count frames.

    Arguments
        out: file for the result.
        quick: two rounds instead of five.
        seconds: limit; with less time fewer rounds, or no result.
    """
    agenda = Agenda("explorer", 5, quick=quick, seconds=seconds)
    drags = Measurement("drags", 10, 25, partial(_drags, agenda))
    lacking = "Bokeh" if find_spec("bokeh") is None else "Chromium" if BROWSER is None else None
    if lacking:
        agenda.leave_out(drags.what, f"there is no {lacking}")
    found = {} if lacking else agenda.take([drags]).get(drags.what, {})
    return conclude(agenda, command("explorer", quick=quick, seconds=seconds), found, out)


def _drags(agenda: Agenda) -> dict[str, Any]:
    pages = _pages()
    rates: dict[str, list[float]] = {name: [] for name in pages}
    work: dict[str, list[float]] = {name: [] for name in pages}
    for _ in agenda.rounds():
        for name, (page, slider) in pages.items():
            times, busy = _dragged(page, slider)
            rates[name].append(1000 * (len(times) - 1) / (times[-1] - times[0]))
            work[name].append(median(busy))
    return {
        "frames_per_second": {name: spread(values, 1) for name, values in rates.items()},
        "work": {name: spread(values, 2) for name, values in work.items()},
        "bytes": {name: len(page.encode()) for name, (page, _) in pages.items()},
        "targets": [
            target(f"frames per second, {name}", spread(rates[name])["median"], "at least", 59)
            for name in ("plane", "contrasts")
        ],
    }


def _pages() -> dict[str, tuple[str, str]]:
    """Pages, and the slider to drag in each."""
    import jax

    from organics.circuit.file import load_circuit
    from organics.explorer.page import as_page

    jax.config.update("jax_enable_x64", True)
    examples = Path(__file__).parent.parent / "examples"
    pages = {"empty": ('<body><input type="range" id="slider"></body>', "slider")}
    for name, file, slider in (
        ("plane", "figure1b.json", "slider_W_r"),
        ("contrasts", "orientation_ring.json", "slider_contrast"),
    ):
        circuit, drives = load_circuit(examples / file)
        pages[name] = as_page(circuit, drives[-1]), slider
    return pages


def _dragged(page: str, slider: str) -> tuple[list[float], list[float]]:
    """When each frame began, and how long the page was busy with it, in ms."""
    # the page's policy would refuse the script that drags
    page = re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", DRAG % (slider, FRAMES))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"]
        # with a port it stays open, and draws in real time
        kept = [f"--user-data-dir={folder}/profile", "--remote-debugging-port=0"]
        asked = [str(BROWSER), *flags, *kept, "--enable-logging=stderr", file.as_uri()]
        with subprocess.Popen(asked, stderr=subprocess.PIPE, text=True) as process:
            alarm = threading.Timer(LONGEST, process.terminate)
            alarm.start()
            said = (re.search(r"DRAGGED (\{[^}]+\})", line) for line in process.stderr or ())
            dragged = next(filter(None, said), None)
            alarm.cancel()
            process.terminate()
    if dragged is None:
        raise ValueError(f"the page was not dragged within {LONGEST} seconds.")
    found = json.loads(dragged[1].replace("\\", ""))
    return found["times"], found["work"]


if __name__ == "__main__":
    command_line(run)
