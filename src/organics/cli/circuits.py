"""Common parts of the commands on circuit files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organics.circuit.circuit import Circuit
    from organics.rest.point import OperatingPoint


def in_double_precision() -> None:
    """Compute in float64 in this process; the library itself never changes JAX's settings."""
    import jax

    jax.config.update("jax_enable_x64", True)


def load(*files: Path) -> "list[tuple[Circuit, Any]]":
    """Circuit and drives (drives, n) of each circuit file, in float64.

    An explicit identity matrix as `W_r` becomes `None`. Errors in a file are reported before JAX is
    imported.
    """
    from organics.circuit.file import build, read

    if not files:
        raise ValueError("`files` must name at least one circuit file.")
    contents = [read(file) for file in files]
    in_double_precision()
    from organics.circuit.circuit import identity_recurrence

    found = [build(file, content) for file, content in zip(files, contents, strict=True)]
    return [(identity_recurrence(circuit) or circuit, drives) for circuit, drives in found]


def about(file: Path | None, circuit: "Circuit") -> dict[str, Any]:
    """The description of a circuit in the JSON document of any command."""
    return {
        "file": file,
        "n": circuit.n,
        "rectified": circuit.rectified,
        "identity_recurrence": circuit.has_identity_recurrence,
    }


def one_drive(drives: Any, index: int) -> Any:
    """The drive with this index. Raises `ValueError` if there is none."""
    if not 0 <= index < len(drives):
        raise ValueError(
            f"`drive` must be between 0 and {len(drives) - 1}, as the file has {len(drives)} "
            f"input drive(s), not {index}."
        )
    return drives[index]


FIGURES = (".png", ".svg", ".pdf")


def check_figure_path(out: Path | None) -> None:
    """Refuse a figure that cannot be written, before any work starts."""
    check_outputs(() if out is None else (out,), FIGURES)


def check_noise(**levels: float) -> None:
    """Refuse levels of noise, by name, that are not finite and >= 0."""
    for name, level in levels.items():
        if not 0 <= level < float("inf"):
            raise ValueError(f"`{name}` must be finite and >= 0, not {level}.")


def check_outputs(out: tuple[Path, ...], kinds: tuple[str, ...]) -> None:
    """Refuse files that cannot be written, before any work starts."""
    for path in out:
        if path.suffix.lower() not in kinds:
            *most, last = kinds
            raise ValueError(f"`out` must end in {', '.join(most)} or {last}, not {str(path)!r}.")
        if not path.parent.is_dir():
            raise ValueError(f"`out`: the folder {str(path.parent)!r} does not exist.")


def certificate_evidence(point: "OperatingPoint", linear: Any = None) -> dict[str, Any]:
    """The results of `certify` and, if there is a `T`, of `verify` at a steady state."""
    import numpy as np

    from organics.linear_stability.certificate import certify
    from organics.linear_stability.verification import verify

    certificate = certify(point, linear)
    evidence: dict[str, Any] = {
        "kind": certificate.kind,
        "holds": bool(certificate.holds),
        "checks": {name: bool(passed) for name, passed in certificate.checks.items()},
    }
    if certificate.T is not None:
        verified = verify(point, np.asarray(certificate.T))
        evidence |= {
            "T": certificate.T,
            "margin": certificate.margin,
            "verified": verified.valid,
            "verification_margin": verified.margin,
            "failures": verified.failures,
        }
    return evidence


def certificate_in_words(evidence: dict[str, Any]) -> str:
    """One line about the outcome of `certificate_evidence`."""
    if evidence["kind"] == "spectral":
        return "spectral (numerical) only: no structural certificate exists for a general W_r"
    state = "holds" if evidence["holds"] and evidence["verified"] else "FAILS"
    return f"{evidence['kind']}, {state}, margin {float(evidence['margin']):.4g}"


def others_evidence(point: "OperatingPoint") -> dict[str, Any]:
    """The result of `other_states` at a steady state."""
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
    return {"unique": found.unique, "why": found.why, "states": states}


def others_in_words(evidence: dict[str, Any]) -> str:
    """One line about the outcome of `others_evidence`."""
    if not evidence["states"]:
        return evidence["why"] if evidence["unique"] is None else f"none: {evidence['why']}"
    stable = sum(state["stable"] for state in evidence["states"])
    return f"{len(evidence['states'])}, {stable} of them stable: {evidence['why']}"


def describe(circuit: "Circuit") -> str:
    """One line about a circuit."""
    recurrence = "identity recurrence" if circuit.has_identity_recurrence else "general recurrence"
    model = "rectified model" if circuit.rectified else "main model"
    return f"{circuit.n} + {circuit.n} neurons, {recurrence}, {model}"
