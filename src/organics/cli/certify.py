"""`organics certify`"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import (
    OTHERWISE,
    about,
    certificate_evidence,
    certificate_in_words,
    describe,
    is_hierarchy,
    load,
    not_found,
    others_evidence,
    others_in_words,
    state_as_document,
)
from organics.printing import numbers

_DIGITS = 12  # shown of a ball


@dataclass(frozen=True)
class Certify:
    """Certificate of stability of a circuit or hierarchy, for each drive; with --rigorous, a proof.

    A proof uses ball arithmetic and is about the exact numbers in the file. Its verdict is
    "proved", "disproved", or "undecided" if --max-bits bits are not enough.

    Example: organics certify examples/no_steady_state.json --rigorous
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Circuit files, .json or .npz."""
    rigorous: bool = False
    """Prove or disprove stability in ball arithmetic, which bounds all rounding errors."""
    max_bits: int = 848
    """Highest precision for --rigorous, which begins with 53 bits and doubles them."""
    check: bool = False
    """Exit with 1 unless the certificate holds, or the proof succeeds, for every drive."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from rich.table import Table

        if self.max_bits < 2:
            raise ValueError(f"`max_bits` must be at least 2, not {self.max_bits}.")
        documents, text, held = [], [], True
        found = load(*self.files, proves=self.rigorous)
        for file, (circuit, drives) in zip(self.files, found, strict=True):
            how = partial(_prove, max_bits=self.max_bits) if self.rigorous else _float
            found = [how(circuit, z) for z in drives]
            documents.append(about(file, circuit) | {"drives": [one.document for one in found]})
            text.append(f"{file}: {describe(circuit)}")
            for i, one in enumerate(found):
                table = Table(title=f"drive {i}", title_justify="left", show_header=False, box=None)
                for row in one.rows:
                    table.add_row(*row)
                text.append(table)
            held = held and all(one.held for one in found)
        document = {"rigorous": self.rigorous, "circuits": documents}
        return Answer(document, text, positive=held or not self.check)


class _Found(NamedTuple):
    """The result for one drive: for `--json`, as text, and whether it is positive."""

    document: dict[str, Any]
    rows: list[tuple[str, str]]
    held: bool


def _float(circuit, z) -> _Found:
    from organics.rest.search import steady_state

    areas = is_hierarchy(circuit)
    point = steady_state(circuit, z)
    document = {"z": z, "converged": bool(point.converged), "residual": point.residual}
    rows = [("z", numbers(z))]
    if not point.converged:
        rows += [("steady state", not_found(point.residual))]
        if not areas:
            others = document["others"] = others_evidence(point)
            rows += [(OTHERWISE, others_in_words(others))]
        return _Found(document | {"certificate": None}, rows, False)
    document |= state_as_document(point.state)
    evidence = document["certificate"] = certificate_evidence(point)
    rows += point.lines().rows[:-2]
    rows += [("certificate", certificate_in_words(evidence))]
    if not areas:
        others = document["others"] = others_evidence(point)
        rows += [("other states", others_in_words(others))]
    rows += [(name, "holds" if passed else "FAILS") for name, passed in evidence["checks"].items()]
    held = evidence["holds"] and evidence.get("verified", True)
    return _Found(document, rows, held)


def _prove(circuit, z, *, max_bits: int) -> _Found:
    from organics.proofs.proof import prove
    from organics.rest.search import steady_state

    proof = prove(steady_state(circuit, z), max_bits=max_bits)
    balls = [(name, [_ball(x) for x in values]) for name, values in proof.balls()]
    inequalities = [
        {"inequality": name, "holds": holds, "margin": _ball(margin)}
        for name, holds, margin in proof.inequalities
    ]
    document = {
        "z": z,
        "verdict": proof.verdict,
        "statement": proof.statement,
        "bits": proof.bits,
        **_enclosure(proof.enclosure, is_hierarchy(circuit)),
        "decided_by": inequalities[proof.inequalities.index(proof.decided_by)],
        "inequalities": inequalities,
    }
    rows = [
        ("z", numbers(z)),
        *((name, _listed(values)) for name, values in balls),
        ("verdict", f"{proof.verdict}: {proof.statement}"),
        ("decided by", f"{proof.decided_by.name}"),
        ("its margin", f"{_ball(proof.decided_by.margin)}, {proof.bits} bits"),
    ]
    others = [one for one in proof.inequalities if one is not proof.decided_by]
    words = {True: "holds", False: "FAILS", None: "open"}
    rows += [
        ("also", f"{name}: {words[holds]}, margin {_ball(margin)}")
        for name, holds, margin in others
    ]
    return _Found(document, rows, proof.verdict == "proved")


def _enclosure(found: Any, areas: bool) -> dict[str, Any]:
    """The balls as JSON has them."""
    if found is None:
        return {"areas": None} if areas else {"y": None, "a": None}
    if areas:
        return {"areas": [_enclosure(box, False) for box in found]}
    return {name: [_ball(x) for x in values] for name, values in found._asdict().items()}


def _ball(value) -> str:
    return value.str(_DIGITS)


def _listed(balls: list[str]) -> str:
    shown = balls if len(balls) <= 6 else [*balls[:3], "...", *balls[-3:]]
    return "  ".join(shown)


COMMANDS = Certify
