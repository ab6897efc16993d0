"""`organics export`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from organics.cli.answer import Answer
from organics.names import ExportFormat


@dataclass(frozen=True)
class Export:
    """The trained network of a run as a file that runs without this package.

    The file maps inputs in float32, any number at once, to class scores or numbers: images and
    sequences of images with pixels from 0 to 1, your own data as they are in your file. Sequences
    may have any length. It is compared with the network on random inputs before it is written.

    Example: organics export runs/smnist --format onnx --out smnist.onnx
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    format: ExportFormat
    """"onnx", for any ONNX runtime; "torch", for `torch.export.load`; or "stablehlo", for
    `jax.export.deserialize`. The first two need the extra "export"."""
    out: Path
    """The file."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.exports.export import export_run

        found = export_run(self.run_folder, self.format, self.out)
        shapes = " to ".join(
            f"({', '.join(map(str, shape))})" for shape in (found.input_shape, found.output_shape)
        )
        text = [
            f"{self.format}: {shapes}, {found.bytes:,} bytes",
            f"equal to the network within {found.difference:.1g} ({found.checked_with})",
        ]
        document = {"run": self.run_folder, "format": self.format, **found._asdict()}
        del document["path"]
        return Answer(document, text, wrote=(found.path,))


COMMANDS = Export
