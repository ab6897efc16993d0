"""Common parts of the commands on circuit files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from organics.circuit.circuit import Circuit
    from organics.circuit.gated import GatedHierarchy
    from organics.circuit.hierarchy import Hierarchy
    from organics.rest.point import OperatingPoint


def in_double_precision() -> None:
    """Compute in float64 in this process; the library itself never changes JAX's settings."""
    import jax

    jax.config.update("jax_enable_x64", True)


def load(*files: Path, only_circuits: str = "", proves: bool = False) -> "list[tuple[Any, Any]]":
    """Circuit, or hierarchy, and drives (drives, n) of each circuit file, in float64.

    Files with hierarchies are refused if `only_circuits` says why, and those in the published form
    if the command `proves` something.

    An explicit identity matrix as `W_r` becomes `None`. Errors in a file are reported before JAX is
    imported.
    """
    from organics.circuit.file import build, read

    if not files:
        raise ValueError("`files` must name at least one circuit file.")
    contents = [read(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        if only_circuits and "areas" in content:
            raise ValueError(
                f"`file` must be of one circuit, not a hierarchy of areas: {only_circuits}: {file}."
            )
        if proves and content.get("form") == "published":
            raise ValueError(
                f'`file` must not have the `form` "published", only "balanced" or "additive": '
                f"nothing is proved about gates and trackers: {file}."
            )
    in_double_precision()
    found = [build(file, content) for file, content in zip(files, contents, strict=True)]
    return [(one.known_identities(), z) for one, z in found]


def about(file: Path | None, circuit: "Circuit | Hierarchy | GatedHierarchy") -> dict[str, Any]:
    """The description of a circuit or hierarchy in the JSON document of any command."""
    if is_hierarchy(circuit):
        return {
            "file": file,
            "sizes": circuit.sizes,
            "form": circuit.form,
            "gamma": circuit.gamma,
            "identity_recurrence": circuit.has_identity_recurrence,
        }
    return {
        "file": file,
        "n": circuit.n,
        "rectified": circuit.rectified,
        "identity_recurrence": circuit.has_identity_recurrence,
    }


def state_as_document(state: Any) -> dict[str, Any]:
    """`y` and `a`; of a hierarchy a list of them, `areas`."""
    if hasattr(state, "_asdict"):
        return state._asdict()
    return {"areas": [area._asdict() for area in state]}


def is_hierarchy(system: Any) -> "TypeIs[Hierarchy | GatedHierarchy]":
    """Whether it is a hierarchy of areas, in any form."""
    from organics.circuit.gated import GatedHierarchy
    from organics.circuit.hierarchy import Hierarchy

    return isinstance(system, Hierarchy | GatedHierarchy)


def one_drive(drives: Any, index: int) -> Any:
    """The drive with this index. Raises `ValueError` if there is none."""
    if not 0 <= index < len(drives):
        raise ValueError(
            f"`drive` must be between 0 and {len(drives) - 1}, as the file has {len(drives)} "
            f"input drive(s), not {index}."
        )
    return drives[index]


FIGURES = (".png", ".svg", ".pdf")


def check_figure_path(out: Path | None, option: str = "out") -> None:
    """Refuse a figure that cannot be written, before any work starts."""
    check_outputs(() if out is None else (out,), FIGURES, option=option)


def check_noise(**levels: float | tuple[float, ...]) -> None:
    """Refuse levels of noise, by name, that are not finite and >= 0, or whose square is not."""
    for name, given in levels.items():
        for level in given if isinstance(given, tuple) else (given,):
            _check_level(name, level)


def levels_of(name: str, given: tuple[float, ...], circuit: Any) -> Any:
    """Levels of noise as `Noise` takes them. Raises `ValueError` unless there is one, or one for
    each neuron of a circuit."""
    import numpy as np

    n = 1 if is_hierarchy(circuit) else circuit.n
    if len(given) not in (1, n):
        several = " in a hierarchy" if is_hierarchy(circuit) else f", or one for each of {n}"
        raise ValueError(f"`{name}` must be one number{several}, not {len(given)}.")
    return given[0] if len(given) == 1 else np.array(given)


def _check_level(name: str, level: float) -> None:
    if not 0 <= level < float("inf"):
        raise ValueError(f"`{name}` must be finite and >= 0, not {level}.")
    if level and not 0 < level * level < float("inf"):
        raise ValueError(f"`{name}` must have a square above 0 and finite, not {level}.")


def check_correlation_time(tau_f: float | None) -> None:
    """Refuse a correlation time of noise that is not finite and > 0."""
    if tau_f is not None and not 0 < tau_f < float("inf"):
        raise ValueError(f"`tau_f` must be finite and > 0 ms, not {tau_f}.")


def check_outputs(
    out: tuple[Path, ...],
    kinds: tuple[str, ...],
    inputs: Iterable[Path | None] = (),
    option: str = "out",
) -> None:
    """Refuse files that cannot be written, or that are inputs, before any work starts."""
    read = {path.resolve() for path in inputs if path is not None}
    for path in out:
        if path.suffix.lower() not in kinds:
            *most, last = kinds
            endings = f"{', '.join(most)} or {last}"
            raise ValueError(f"`{option}` must end in {endings}, not {str(path)!r}.")
        if not path.parent.is_dir():
            raise ValueError(f"`{option}`: the folder {str(path.parent)!r} does not exist.")
        if path.resolve() in read:
            raise ValueError(f"`{option}` must not be an input of the command, {str(path)!r}.")


def certificate_evidence(point: "OperatingPoint", linear: Any = None) -> dict[str, Any]:
    """The results of `certify` and, if there is a `T`, of `verify` at a steady state."""
    import numpy as np

    from organics.linear_stability.certificate import certify
    from organics.linear_stability.verification import verify

    certificate = certify(point, linear)
    if is_hierarchy(point.system):
        return _evidence_of_areas(point, certificate)
    evidence: dict[str, Any] = {
        "kind": certificate.kind,
        "holds": bool(certificate.holds),
        "checks": {name: bool(passed) for name, passed in certificate.checks.items()},
    }
    if certificate.kind == "spectral":
        evidence["why"] = "no structural certificate exists for a general W_r"
    if certificate.margin is not None:
        evidence["margin"] = certificate.margin
    if certificate.T is not None:
        verified = verify(point, np.asarray(certificate.T))
        evidence |= {
            "T": certificate.T,
            "verified": verified.valid,
            "verification_margin": verified.margin,
            "failures": verified.failures,
        }
    return evidence


def _evidence_of_areas(point: "OperatingPoint", certificate: Any) -> dict[str, Any]:
    """The same for a hierarchy; where each area has a `T`, each is verified by itself."""
    from organics.linear_stability.verification import verify
    from organics.rest.point import area_points

    evidence: dict[str, Any] = {
        "kind": certificate.kind,
        "holds": bool(certificate.holds),
        "margin": certificate.margin,
        "checks": {name: bool(passed) for name, passed in certificate.checks.items()},
    }
    if certificate.kind == "spectral":
        evidence["why"] = "a loop between areas may have a gain of 1, or W_r is general"
        if not point.system.separable:
            evidence["why"] = "none is known where gates lag, as in the published form"
    if certificate.T is None:
        return evidence
    each = [verify(area, T) for area, T in zip(area_points(point), certificate.T, strict=True)]
    return evidence | {
        "T": certificate.T,
        "verified": all(one.valid for one in each),
        "verification_margin": min(one.margin for one in each),
        "failures": [words for one in each for words in one.failures],
    }


def states_by_name(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The state in a result of `analyze`, with the words for which area's."""
    if "areas" not in result:
        return [("", result)]
    return [(f" of area {i + 1}", area) for i, area in enumerate(result["areas"])]


def certificate_in_words(evidence: dict[str, Any]) -> str:
    """One line about the outcome of `certificate_evidence`."""
    if evidence["kind"] == "spectral":
        return f"spectral (numerical) only: {evidence['why']}"
    state = "holds" if evidence["holds"] and evidence.get("verified", True) else "FAILS"
    return f"{evidence['kind']}, {state}, margin {float(evidence['margin']):.4g}"


def others_evidence(point: "OperatingPoint") -> dict[str, Any]:
    """The result of `other_states` at a steady state; where the search for one ended, if it failed,
    and `unique` is then `None`."""
    from organics.enumeration.others import other_states
    from organics.linear_stability.spectrum import stability

    found = other_states(point)
    states = [
        {
            "y": other.state.y,
            "a": other.state.a,
            "stable": bool(linear.stable),
            "spectral_abscissa": linear.spectral_abscissa,
        }
        for other in found.points
        for linear in [stability(other)]
    ]
    unique = found.unique if bool(point.converged) else None
    return {"unique": unique, "why": found.why, "states": states}


@contextmanager
def naming_file(file: Path | None) -> Iterator[None]:
    """Errors about the circuit of a file, with its name."""
    try:
        yield
    except ValueError as error:
        raise error if file is None else ValueError(f"{file}: {error}") from None


OTHERWISE = "states found otherwise"
"""What others are called where the search from rest finds none."""


def not_found(residual: Any) -> str:
    """In place of a steady state."""
    return f"none found from rest (best residual {float(residual):.2e})"


def others_in_words(evidence: dict[str, Any]) -> str:
    """One line about the outcome of `others_evidence`."""
    if not evidence["states"]:
        return evidence["why"] if evidence["unique"] is None else f"none: {evidence['why']}"
    stable = sum(state["stable"] for state in evidence["states"])
    return f"{len(evidence['states'])}, {stable} of them stable: {evidence['why']}"


def describe(circuit: "Circuit | Hierarchy | GatedHierarchy") -> str:
    """One line about a circuit or hierarchy."""
    if is_hierarchy(circuit):
        sizes = ", ".join(f"{n} + {n}" for n in circuit.sizes)
        form = "no feedback" if circuit.is_cascade else f"{circuit.form} feedback"
        gates = ", with gates and trackers" if circuit.form == "published" else ""
        return f"{len(circuit.sizes)} areas of {sizes} neurons, {form}{gates}"
    recurrence = "identity recurrence" if circuit.has_identity_recurrence else "general recurrence"
    model = "rectified model" if circuit.rectified else "main model"
    return f"{circuit.n} + {circuit.n} neurons, {recurrence}, {model}"
