"""The explorer: its equations in a browser are those of Python, and no text of a file can run."""

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib import resources, util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from organics import cli
from organics.circuit.circuit import Circuit, State
from organics.circuit.file import load_circuit
from organics.explorer import page
from organics.explorer.responses import CONTRASTS, responses
from organics.linear.jacobian import jacobian
from organics.planar import fixed_points_2d, nullclines
from organics.rest.search import given_state
from organics.simulation.noise import Noise
from organics.simulation.ode import simulate
from organics.spectra import power_spectrum

EXAMPLES = Path(__file__).parent.parent / "examples"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = "</script><b>x</b>\u2028& <!--"

needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
needs_bokeh = pytest.mark.skipif(util.find_spec("bokeh") is None, reason="bokeh is not installed")


def shown(text, folder):
    """What Chromium makes of a page, after its scripts."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    asked = [*flags, "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    done = subprocess.run([str(BROWSER), *asked], capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def in_element(id, dom):
    """The text of an element without children."""
    (found,) = re.findall(rf'id="{id}"[^>]*>([^<]*)<', dom)
    return html.unescape(found)


# The equations -----------------------------------------------------------------------------------

Y_LIMITS, A_LIMITS, COUNT = (-3.0, 3.0), (0.0, 2.0), 60
DURATION, SAMPLES, START = 40.0, 50, (0.3, 0.2)
KILOHERTZ, LEVELS = np.geomspace(1e-3, 1, 12), {"y": 0.1, "a": 0.05}
NAMES = ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a")

HARNESS = """
const given = {given};
const pathOf = (c) =>
  equations.trajectory(c, given.start, given.duration, given.samples, 1e-9);
const results = given.circuits.map((c) => {{
  const points = equations.fixedPoints(c);
  return {{
    points,
    nullclines: equations.nullclines(c, given.y, given.a, given.count),
    path: pathOf(c),
    power: points.map((point) => equations.power(c, point, given.kilohertz, given.levels)),
  }};
}});
document.getElementById("results").textContent = JSON.stringify(results);
"""


def table():
    """Circuits of n = 1 with their drives, as numbers: random ones, and those at the edges."""
    rng = np.random.default_rng(0)
    lows = [0, 0, 0.1, 0.1, 0.05, 0.5, 0.5, -2]
    highs = [2, 4, 2, 1, 0.5, 5, 5, 2]
    rows = [*rng.uniform(lows, highs, (24, 8)).tolist()]
    plain = [0.5, 0.5, 0.1, 2.0, 2.0]
    rows += [[w, w_r, *plain, z] for w, w_r in [(1, 2), (1, 1), (0, 2), (4, 0)]
             for z in (1, -1, 0)]  # fmt: skip
    return [
        dict(zip((*NAMES, "z"), map(float, row), strict=True)) | {"rectified": rectified}
        for row in rows
        for rectified in (False, True)
    ]


def as_circuit(numbers):
    W, W_r, *others = (numbers[name] for name in NAMES)
    return Circuit([[W]], [[W_r]], *others, rectified=numbers["rectified"])


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The table, with what the browser computes for each circuit."""
    given = {
        "circuits": table(),
        "y": Y_LIMITS,
        "a": A_LIMITS,
        "count": COUNT,
        "start": START,
        "duration": DURATION,
        "samples": SAMPLES,
        "kilohertz": KILOHERTZ.tolist(),
        "levels": LEVELS,
    }
    program = resources.files("organics.explorer").joinpath("equations.js").read_text()
    harness = HARNESS.format(given=json.dumps(given))
    text = f'<pre id="results"></pre><script>{program}</script><script>{harness}</script>'
    results = json.loads(in_element("results", shown(text, tmp_path_factory.mktemp("browser"))))
    return list(zip(table(), results, strict=True))


@needs_browser
def test_fixed_points_and_eigenvalues_are_those_of_python(computed):
    counts = set()
    for numbers, result in computed:
        want, got = fixed_points_2d(as_circuit(numbers), numbers["z"]), result["points"]
        assert [point["kind"] for point in got] == [point.kind for point in want], numbers
        assert [point["stable"] for point in got] == [point.stable for point in want]
        counts.add((numbers["rectified"], len(got)))
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose([one["y"], one["a"]], [other.y, other.a], 1e-9, 1e-14)
            eigenvalues = np.array(one["eigenvalues"]) @ [1, 1j]
            np.testing.assert_allclose(eigenvalues, other.eigenvalues, 1e-7, 1e-12)
    assert {(False, 0), (False, 1), (False, 3), (True, 1)} <= counts


@needs_browser
def test_nullclines_are_those_of_python(computed):
    """Each sample of Python's curves lies at one of the browser's, and the other way round."""
    for numbers, result in computed:
        want = nullclines(as_circuit(numbers), numbers["z"], Y_LIMITS, A_LIMITS, COUNT)
        for got, curves in ((result["nullclines"][name], getattr(want, name)) for name in "ya"):
            assert len(got) == len(curves)
            if curves:
                one, other = np.concatenate(got), np.concatenate(curves)
                apart = np.linalg.norm(one[:, None] - other, axis=-1)
                assert max(apart.min(0).max(), apart.min(1).max()) < 1e-7, numbers


@needs_browser
@pytest.mark.parametrize("rectified", [False, True])
def test_trajectories_and_spectra_are_those_of_python(computed, rectified):
    chosen = [(c, result) for c, result in computed if c["rectified"] == rectified]
    stack = lambda values: jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)  # noqa: E731
    circuits = [as_circuit(numbers) for numbers, _ in chosen]
    drives = jnp.array([[numbers["z"]] for numbers, _ in chosen])
    start = State(*(jnp.array([x]) for x in START))
    t = jnp.linspace(0, DURATION, SAMPLES + 1)

    @jax.jit
    @jax.vmap
    def simulated(circuit, z):
        return simulate(circuit, z, t, start, rtol=1e-8, throw=False).state

    paths = simulated(stack(circuits), drives)
    for i, (numbers, result) in enumerate(chosen):
        for name in "ya":
            got, want = result["path"][name], getattr(paths, name)[i, :, 0]
            size = float(jnp.max(jnp.abs(want)))
            if size < 1e3:  # with W_r = 0 some run away, and small errors with them
                np.testing.assert_allclose(got, want, 1e-5, 1e-6 * size, err_msg=str(numbers))

    stable = [(i, point, result["power"][k]) for i, (_, result) in enumerate(chosen)
              for k, point in enumerate(result["points"]) if point["stable"]]  # fmt: skip

    @jax.jit
    @jax.vmap
    def spectra(circuit, z, y, a):
        point = given_state(circuit, z, State(y, a))
        return power_spectrum(point, KILOHERTZ, Noise(LEVELS["y"], LEVELS["a"]))

    y, a = (jnp.array([[point[name]] for _, point, _ in stable]) for name in "ya")
    at = [i for i, *_ in stable]
    want = spectra(stack([circuits[i] for i in at]), drives[np.array(at)], y, a)
    got = np.array([[power["y"], power["a"]] for *_, power in stable], float)  # null is NaN
    assert len(stable) > 20
    np.testing.assert_allclose(np.swapaxes(got, 1, 2), want, 1e-7)


# The page ----------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


RING = Circuit([[1.0, 0.5], [0.5, 1.0]], b=[0.5, 0.7], tau_a=4.0)
DRIVE = np.array([1.0, -0.3])

DRIVER = """<script>
addEventListener("load", () => setTimeout(() => {
  const rectified = document.getElementById("rectified");
  const before = document.getElementById("verdict").textContent;
  const slide = (id, value) => {
    const slider = document.getElementById(id);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  };
  slide("slider_W_r", 0.5);
  slide("slider_sigma", -2);
  slide("field_tau_y", 2.125);
  slide("field_tau_a", -1); // refused
  setTimeout(() => {
    const results = { before, after: document.getElementById("verdict").textContent };
    const visual = Bokeh.require("core/visuals/visual").VisualProperties.prototype;
    results.remembers = String(visual._get_css_value).includes("known");
    for (const name of ["file", "python"]) {
      document.getElementById(`copy_${name}`).click();
      results[name] = document.getElementById("text").value;
    }
    document.body.append(page.element("pre", { id: "results" }, JSON.stringify(results)));
  }, 500);
}, 1500));
</script>"""


# a browser without a screen draws few frames
TIMER = "requestAnimationFrame = (draw) => setTimeout(draw, 16);"
FRAMES = f"<script>{TIMER}</script>"


@needs_bokeh
@needs_browser
def test_the_page_follows_its_sliders_and_its_texts_can_be_read_back(tmp_path):
    circuit, drives = load_circuit(EXAMPLES / "figure1b.json")
    text = page.as_page(circuit, drives[0], title=HOSTILE, comment=HOSTILE)
    # the policy would refuse the script that moves the sliders
    text = re.sub("<meta http-equiv[^>]*>", FRAMES, text).replace("</body>", DRIVER + "</body>")
    dom = shown(text, tmp_path)
    assert in_element("title", dom) == in_element("comment", dom) == HOSTILE
    results = json.loads(in_element("results", dom))
    assert results["before"] == "3 fixed points, 1 stable"
    assert results["after"] == "1 fixed point, 1 stable"
    assert results["remembers"]  # an inner function of Bokeh, whose name may change
    copied = tmp_path / "copied.json"
    copied.write_text(results["file"])
    got, z = load_circuit(copied)
    scope = {}
    exec(results["python"].partition("point =")[0], scope)
    for one in (got, scope["circuit"]):
        values = [float(np.asarray(getattr(one, name)).item()) for name in NAMES]
        np.testing.assert_allclose(values, [1, 0.5, 0.5, 0.5, 0.01, 2.125, 2])
    assert z.tolist() == [[1.0]] and "steady_state(circuit, [1.0])" in results["python"]


@needs_bokeh
@needs_browser
def test_the_policy_lets_the_page_run_and_nothing_else(tmp_path):
    text = page.as_page(RING, DRIVE).replace("<body>", f"<body>{FRAMES}", 1)
    text = text.replace("script-src", f"script-src 'sha256-{page._sum(TIMER)}'", 1)
    stranger = '<script>document.body.id = "stranger"</script>'
    dom = shown(text.replace("</body>", stranger + "</body>"), tmp_path)
    assert 'id="stranger"' not in dom.replace(stranger, "")
    assert in_element("verdict", dom) == "contrast 1: steady state, stable"
    c = (0.5 * 0.1) ** 2
    a = c + np.array([[1.0, 0.5], [0.5, 1.0]]) @ (np.array([0.5, 0.7]) * DRIVE) ** 2
    y = np.array([0.5, 0.7]) * DRIVE / np.sqrt(a)
    cells = [float(cell) for cell in re.findall("<td>([^<]*)</td>", dom)]
    np.testing.assert_allclose(cells, np.stack([[1, 2], y, a], axis=1).ravel(), 1e-3)


@needs_bokeh
def test_a_text_stays_a_text_and_nothing_is_fetched():
    found = Tags(page.as_page(RING, DRIVE, title=HOSTILE, comment=HOSTILE))
    tags = [tag for tag, _ in found.tags]
    assert "b" not in tags and tags.count("script") == len(found.scripts)
    (content,) = [text for text in found.scripts if text.startswith('{"title"')]
    assert json.loads(content)["title"] == HOSTILE
    assert not [attrs for _, attrs in found.tags if {"src", "href"} & attrs.keys()]
    (policy,) = [attrs["content"] for _, attrs in found.tags if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "eval" not in policy


def test_responses_are_steady_states_and_their_spectra():
    """Against the closed form, and the definition of the spectrum."""
    kilohertz, noise = page.HERTZ / 1000, Noise(0.1, 0.05)
    found = responses(RING, DRIVE, kilohertz, noise)
    assert bool(jnp.all(found.converged & found.stable)) and 1.0 in CONTRASTS
    drive = CONTRASTS[:, None] * DRIVE * np.asarray(RING.b)
    a = np.asarray(RING.c) + drive**2 @ np.asarray(RING.W).T
    np.testing.assert_allclose(found.state.a, a, 1e-12)
    np.testing.assert_allclose(found.state.y, drive / np.sqrt(a), 1e-12)
    i, f = 30, 7
    state = State(found.state.y[i], found.state.a[i])
    J = np.asarray(jacobian(RING, state))
    np.testing.assert_allclose(
        np.sort_complex(found.eigenvalues[i]), np.sort_complex(np.linalg.eigvals(J)), 1e-9
    )
    amplitudes = np.concatenate(noise.amplitudes(RING, state))
    X = np.linalg.inv(2j * math.pi * kilohertz[f] * np.eye(4) - J) * amplitudes
    np.testing.assert_allclose(found.power[i, f], np.sum(np.abs(X) ** 2, axis=1)[:2], 1e-9)


@needs_bokeh
def test_the_command_writes_the_page(tmp_path, capsys):
    file, out = tmp_path / "one.json", tmp_path / "page.html"
    file.write_text(json.dumps({"W": [[1.0]], "z": [[1.0], [2.0]], "name": HOSTILE}))
    asked = ["explore", str(file), "--drive", "1", "--out", str(out), "--json"]
    assert cli.run(asked) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["z"] == [2.0] and document["bytes"] == out.stat().st_size > 1_000_000
    assert document["wrote"] == [str(out)]
    assert "x</b>" not in out.read_text()
    assert cli.run(["explore", "--out", str(out)]) == 0
    circuit, drives = load_circuit(EXAMPLES / "figure1b.json")
    default = out.read_text()
    (content,) = [text for text in Tags(default).scripts if text.startswith('{"title"')]
    shown = json.loads(content)["circuit"]
    assert shown == page._parameters(circuit, drives[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "page.png"], ["out", ".html"]),
        (["--drive", "3"], ["drive", "3"]),
        (["--out", "missing/page.html"], ["missing"]),
        (["large.json"], ["circuit", "30", "31"]),
    ],
)
def test_bad_input_is_refused_and_nothing_written(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("large.json").write_text(json.dumps({"W": np.eye(31).tolist(), "z": 1.0}))
    assert cli.run(["explore", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert [path.name for path in tmp_path.iterdir()] == ["large.json"]


def test_a_drive_that_does_not_fit_is_refused():
    for z in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="`z` must"):
            responses(RING, z, page.HERTZ / 1000, Noise(0.1))


@needs_bokeh
def test_one_neuron_has_one_drive():
    one = Circuit([[1.0]], [[2.0]])
    for z in (1.0, [1.0]):
        assert page._parameters(one, np.atleast_1d(z))["z"] == [1.0]
        assert '"z": [1.0]' in page.as_page(one, z) or '"z":[1.0]' in page.as_page(one, z)
    with pytest.raises(ValueError, match="`z` must"):
        page.as_page(one, [[1.0]])


def test_without_bokeh_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(page.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"bokeh.*organics\[explore\]"):
        page.as_page(RING, DRIVE)
