"""One self-contained page to explore a circuit in a browser.

The page fetches nothing, and its security policy forbids it to. The policy admits no script but
those of this package and of Bokeh, by their check sums, so whatever a circuit's text holds cannot
run.
"""

import base64
import hashlib
import json
from importlib import resources, util
from typing import TYPE_CHECKING, Any

import numpy as np

from organics.circuit.circuit import as_drive
from organics.files.plain import as_plain

if TYPE_CHECKING:
    from organics.circuit.circuit import Circuit
    from organics.circuit.values import Values

LARGEST = 30
"""Most neurons that the page shows."""
NOISE = {"y": 0.1, "a": 0.0}
"""Levels of additive noise of the spectra, the defaults of `organics spectrum`."""
HERTZ = np.geomspace(1, 1000, 100)

# in a script element only these could have a meaning in HTML; the rest of the JSON is ASCII
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


def as_page(circuit: "Circuit", z: "Values", *, title: str = "", comment: str = "") -> str:
    """The page of a circuit and its input drive `z`, shape (n,), as HTML.

    For n = 1 it computes everything itself, for any parameters. Otherwise it shows what is computed
    here, for the drive times a range of contrasts. `title` and `comment` are shown as they are.

    Raises `ValueError` if the circuit has more than 30 neurons, if Bokeh is missing, and as
    `fixed_points_2d` or `steady_state` do; `ArithmeticError` as the former does.
    """
    if circuit.n > LARGEST:
        raise ValueError(f"`circuit` must have at most {LARGEST} neurons, not {circuit.n}.")
    z = as_drive(circuit, np.atleast_1d(np.asarray(z)))
    if util.find_spec("bokeh") is None:
        raise ValueError("the page needs the package bokeh: pip install 'organics[explore]'.")
    from organics.explorer import figures

    content: dict[str, Any] = {
        "title": title,
        "comment": comment,
        "circuit": _parameters(circuit, z),
        "noise": NOISE,
        "hertz": as_plain(HERTZ),
    }
    if circuit.n == 1:
        from organics.planar import fixed_points_2d

        fixed_points_2d(circuit, z)  # refuses what the page could not show
        drawn, scripts = figures.plane(), ("equations.js", "figures.js", "plane.js")
    else:
        content["responses"] = _packed_responses(circuit, z)
        content["colors"] = figures.neuron_colors(circuit.n)
        drawn, scripts = figures.contrasts(), ("figures.js", "contrasts.js")
    return _assemble(content | {"figures": _as_items(drawn)}, drawn, scripts)


def _parameters(circuit: "Circuit", z: "Values") -> dict[str, Any]:
    """The contents of a circuit file with one drive."""
    values: dict[str, Any] = {"W": circuit.pool, "W_r": None}
    if not circuit.has_identity_recurrence:
        values["W_r"] = circuit.recurrent
    elif circuit.n == 1:
        values["W_r"] = [[1.0]]  # a slider moves it
    values = {name: value if value is None else np.asarray(value) for name, value in values.items()}
    for name in ("b", "b0", "sigma", "tau_y", "tau_a"):
        values[name] = np.asarray(getattr(circuit, name))
    return as_plain(values | {"rectified": circuit.rectified, "z": np.asarray(z)})


def _packed_responses(circuit: "Circuit", z: "Values") -> dict[str, Any]:
    from organics.explorer.responses import CONTRASTS, responses
    from organics.simulation.noise import Noise

    found = responses(circuit, z, HERTZ / 1000, Noise(NOISE["y"], NOISE["a"]))
    eigenvalues = np.asarray(found.eigenvalues)
    return {
        "contrasts": as_plain(CONTRASTS),
        "converged": as_plain(found.converged),
        "stable": as_plain(found.stable),
        "y": _packed(found.state.y),
        "a": _packed(found.state.a),
        "real": _packed(np.real(eigenvalues)),
        "imaginary": _packed(np.imag(eigenvalues)),
        "power": _packed(np.swapaxes(found.power, 1, 2) / 1000),
    }


def _packed(array: Any) -> str:
    """An array as float32, little-endian, in base64."""
    return base64.b64encode(np.asarray(array).astype("<f4").tobytes()).decode()


def _as_items(drawn: dict[str, Any]) -> dict[str, Any]:
    from bokeh.embed import json_item  # pyright: ignore[reportMissingImports]

    return {name: json_item(figure) for name, figure in drawn.items()}


def _assemble(content: dict[str, Any], drawn: dict[str, Any], scripts: tuple[str, ...]) -> str:
    from bokeh.resources import Resources  # pyright: ignore[reportMissingImports]

    bokeh = Resources(mode="inline", components=["bokeh"]).js_raw
    programs = [*bokeh, *(_own(name) for name in scripts)]
    sums = " ".join(f"'sha256-{_sum(program)}'" for program in programs)
    panels = "".join(f'<div class="figure" id="{name}"></div>' for name in drawn)
    parts = {
        "POLICY": f"default-src 'none'; script-src {sums}; style-src 'unsafe-inline'; "
        "img-src data: blob:",
        "STYLE": _own("page.css"),
        "FIGURES": panels,
        "CONTENT": json.dumps(content, allow_nan=False).translate(_ESCAPED),
        "SCRIPTS": "\n".join(f"<script>{program}</script>" for program in programs),
    }
    first, *rest = _own("page.html").split("{{")
    pieces = [first]
    for piece in rest:  # what is put in is not looked at again
        name, _, text = piece.partition("}}")
        pieces += [parts[name], text]
    return "".join(pieces)


def _sum(program: str) -> str:
    return base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()


def _own(name: str) -> str:
    return resources.files("organics.explorer").joinpath(name).read_text(encoding="utf-8")
