"""`organics demo`"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from organics.cli.answer import Answer, note
from organics.files.plain import as_plain


@dataclass(frozen=True)
class Demo:
    """Train on handwritten digits, certify the circuits at every test input, and draw it.

    A classifier with two circuit layers learns the digits that come with scikit-learn, without
    gradient clipping. Then each layer's circuit is certified stable at each test input.

    Example: organics demo --out runs/demo
    """

    out: Path = Path("runs/demo")
    """Folder for the run, the pictures and demo.json."""
    quick: bool = False
    """A few epochs only, as a test."""
    seed: int = 0
    """Seed of the initial parameters and of the order of the images."""
    check: bool = False
    """Exit with 1 unless every circuit is certified at every test input."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.studies.ours import demo

        config = demo.Demo(epochs=25 if self.quick else 150, seed=self.seed)
        self.out.mkdir(parents=True, exist_ok=True)
        note("training two circuit layers on handwritten digits, then certifying them ...")
        result = demo.compute(config, self.out)
        pictures = demo.save(result, self.out)
        report = result.report
        layers = [
            {
                "n": n,
                "inputs": len(proof.holds),
                "certified": int(proof.holds.sum()),
                "smallest_margin": proof.margin.min(),
                "largest_spectral_abscissa": proof.abscissa.max(),
            }
            for n, proof in zip(report.layers, result.proofs, strict=True)
        ]
        document = {
            "report": asdict(report),
            "layers": layers,
            "independently_verified": result.verified,
            "pictures": pictures,
        }
        from organics.files.atomic import write_atomically

        text = json.dumps(as_plain(document), indent=2, allow_nan=False) + "\n"
        write_atomically(self.out / "demo.json", text.encode())
        certified = all(layer["certified"] == layer["inputs"] for layer in layers)
        words = [
            f"test accuracy {report.test_accuracy:.2%}, trained without gradient clipping "
            f"({report.epochs} epochs of {report.seconds_per_epoch:.2f} s)",
            *(
                f"layer {i + 1}: {layer['certified']} of {layer['inputs']} test inputs certified "
                f"stable; smallest margin {layer['smallest_margin']:.3g}, largest real part of any "
                f"eigenvalue {layer['largest_spectral_abscissa']:.3g} 1/ms"
                for i, layer in enumerate(layers)
            ),
            f"{result.verified} certificates checked again independently, all valid",
            "pictures: " + ", ".join(str(path) for path in pictures),
            "next: organics analyze examples/figure1a.json; organics --help",
        ]
        return Answer(document, words, positive=certified or not self.check)


COMMANDS = Demo
