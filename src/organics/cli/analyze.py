"""`organics analyze`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import (
    OTHERWISE,
    about,
    certificate_evidence,
    certificate_in_words,
    check_figure_path,
    describe,
    is_hierarchy,
    load,
    not_found,
    others_in_words,
    state_as_document,
    states_by_name,
)
from organics.printing import numbers

_SHOWN = 10  # other states shown as text
_MANY = "not searched for among so many neurons"


@dataclass(frozen=True)
class Analyze:
    """Steady state, eigenvalues, stability and certificate of a circuit or hierarchy of areas, for
    each of its drives.

    Also says which other steady states a search finds; `organics states` tells more of them. Of
    more than 1,024 neurons only the rightmost eigenvalues are computed, by products with the
    weights, and neither other states nor a certificate.

    Example: organics analyze examples/figure1a.json --check
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Circuit files, .json or .npz."""
    check: bool = False
    """Exit with 1 unless the steady state of each drive is stable; other states do not count."""
    out: Path | None = None
    """Figure of the eigenvalues, a colour for each drive (.png, .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_figure_path(self.out)
        circuits = list(zip(self.files, load(*self.files), strict=True))
        import numpy as np

        documents, text, spectra, stable = [], [], {}, True
        stems = [file.stem for file in self.files]
        names = [
            stem if stems.count(stem) == 1 else f"{stem} (file {i + 1})"
            for i, stem in enumerate(stems)
        ]
        for known, (file, (circuit, drives)) in zip(names, circuits, strict=True):
            results = [_of_one_drive(circuit, z) for z in np.asarray(drives)]
            documents.append(about(file, circuit) | {"drives": results})
            text.append(f"{file}: {describe(circuit)}")
            text += [_in_words(i, result) for i, result in enumerate(results)]
            stable = stable and all(result["stable"] for result in results)
            name = f"{known}, drive" if len(circuits) > 1 else "drive"
            spectra |= {
                f"{name} {i}": one["eigenvalues"]
                for i, one in enumerate(results)
                if one["converged"]
            }
        if self.out is not None:
            if not spectra:
                raise ValueError("`out` must not be given here: no drive has a steady state.")
            from organics.plots import COLOURS, save_figure, spectrum_plane

            # with more drives than colours it only shows which are stable
            each = 1 < len(spectra) <= len(COLOURS)
            values = spectra if each else np.concatenate(list(spectra.values()))
            save_figure(spectrum_plane(values), self.out)
        wrote = () if self.out is None else (self.out,)
        document: dict[str, Any] = {"circuits": documents}
        if len(documents) == 1 and "sizes" in documents[0]:
            document |= {"drives": documents[0]["drives"]}  # those of the only hierarchy
        return Answer(document, text, stable or not self.check, wrote)


_LINEARIZED = (
    "eigenvalues", "spectral_abscissa", "leading_frequency_hz", "largest_euler_step",
    "eigenvalue_residual",
)  # fmt: skip


def _of_one_drive(circuit, z) -> dict[str, Any]:
    import numpy as np

    from organics.cli.circuits import others_evidence
    from organics.linear_stability.spectrum import largest_euler_step, stability
    from organics.rest.search import steady_state

    point = steady_state(circuit, z)
    result = {
        "z": z,
        **state_as_document(point.state),
        "residual": point.residual,
        "converged": bool(point.converged),
        "method": point.method_name,
        "iterations": int(point.iterations),
        **dict.fromkeys(_LINEARIZED),
        "stable": False,
    }
    if not result["converged"]:  # there is nothing to linearize about
        others = {} if is_hierarchy(circuit) else {"others": others_evidence(point)}
        return result | {"certificate": None} | others
    linear = stability(point)
    result |= {
        "eigenvalues": np.asarray(linear.eigenvalues),
        "spectral_abscissa": linear.spectral_abscissa,
        "stable": bool(linear.stable),
        "leading_frequency_hz": linear.leading_frequency,
        "eigenvalue_residual": linear.residual,
    }
    if linear.matrix_free:  # then there are only a few eigenvalues, and no matrix is formed
        result["others"] = {"unique": None, "why": _MANY, "states": []}
        return result | {"certificate": None}
    if linear.stable:  # no step is short enough otherwise
        result["largest_euler_step"] = largest_euler_step(linear.eigenvalues)
    if not is_hierarchy(circuit):
        result["others"] = others_evidence(point)
    return result | {"certificate": certificate_evidence(point, linear)}


def _in_words(index: int, result: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"drive {index}", title_justify="left", show_header=False, box=None)
    table.add_row("z", numbers(result["z"]))
    if not result["converged"]:
        table.add_row("steady state", not_found(result["residual"]))
        _add_others(table, result)
        return table
    for name, state in states_by_name(result):
        for kind in "yapt":
            if kind in state:
                table.add_row(f"{kind}{name}", numbers(state[kind]))
    table.add_row("found by", f"{result['method']}, residual {float(result['residual']):.1e}")
    table.add_row("eigenvalues", f"{numbers(result['eigenvalues'])} 1/ms")
    verdict = "stable" if result["stable"] else "NOT stable"
    abscissa = float(result["spectral_abscissa"])
    table.add_row("verdict", f"{verdict}: largest real part {abscissa:.6g} 1/ms")
    if result["eigenvalue_residual"] is not None:
        residual = float(result["eigenvalue_residual"])
        table.add_row("", f"matrix-free: the rightmost ones, residual {residual:.1e} 1/ms")
    elif result["stable"]:
        table.add_row(
            "Euler", f"steps below {float(result['largest_euler_step']):.4g} ms stay stable"
        )
    if result["certificate"] is not None:
        table.add_row("certificate", certificate_in_words(result["certificate"]))
    _add_others(table, result)
    return table


def _add_others(table: Any, result: dict[str, Any]) -> None:
    if "others" not in result:  # they are not searched for in a hierarchy
        return
    others = result["others"]
    name = "other states" if result["converged"] else OTHERWISE
    table.add_row(name, others_in_words(others))
    for state in others["states"][:_SHOWN]:
        words = "stable" if state["stable"] else "not stable"
        table.add_row("", f"y {numbers(state['y'])}, a {numbers(state['a'])}: {words}")
    if len(others["states"]) > _SHOWN:
        table.add_row("", f"and {len(others['states']) - _SHOWN} more: --json has them")


COMMANDS = Analyze
