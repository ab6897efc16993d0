"""`organics evaluate`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from organics.cli.answer import Answer


@dataclass(frozen=True)
class Evaluate:
    """Test accuracy of a trained run, and stability of its circuits at every test input.

    For a run on sequences: test accuracy, and for a sample of the test inputs the range of the
    layer's outputs (y) and, as a diagnostic, the largest spectral abscissa along the sequences.

    Example: organics evaluate runs/digits --check
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    no_stability: bool = False
    """Skip the eigenvalues of every circuit at every test input, which can take minutes."""
    check: bool = False
    """Exit with 1 unless every circuit is stable at every test input."""
    data: Path | None = None
    """The file of your own that the run was trained on, if it was moved since."""
    out: Path | None = None
    """Figure: histogram of the spectral abscissae over the test inputs (.png, .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.cli.circuits import check_figure_path
        from organics.training import evaluate
        from organics.training.run_folder import RunFolder

        check_figure_path(self.out)
        at_rest = RunFolder.open(self.run_folder).config.has_circuits_at_rest
        for name, wanted in (("out", self.out is not None), ("check", self.check)):
            if wanted and self.no_stability:
                raise ValueError(f"`{name}` is about the stability: leave out `--no-stability`.")
            if wanted and not at_rest:
                raise ValueError(
                    f"`{name}` is about the stability: the model in {self.run_folder} has no "
                    "circuits at rest."
                )
        result, abscissae = evaluate(
            self.run_folder, with_stability=not self.no_stability, data=self.data
        )
        layers = result.get("stability", [])
        dynamics = result.get("dynamics", {})
        if self.out is not None:
            from organics.plots import abscissa_histogram, save_figure

            names = [f"layer {i + 1} (n = {layer['n']})" for i, layer in enumerate(layers)]
            figure = abscissa_histogram(dict(zip(names, abscissae, strict=True)))
            save_figure(figure, self.out)
        stable = all(layer["stable"] == 1 for layer in layers)
        noun = next(noun for noun in ("images", "examples", "trials") if noun in result)
        if "score" in result:
            name = result["measure"].replace("_", " ")
            figure = f"{name} {result['score']:.4g} (trivial: {result['trivial_score']:.4g})"
        elif "error" in result:
            figure = f"error {result['error']:.4g}"
        else:
            figure = f"accuracy {result['accuracy']:.2%}"
        text = [f"{figure} on {result[noun]:,} test {noun}"]
        for name, accuracy in list(result.get("classes", {}).items())[:20]:
            text.append(f"  {name}: {accuracy:.2%}")
        for i, layer in enumerate(layers):
            text.append(
                f"layer {i + 1} (n = {layer['n']}): stable at {layer['stable']:.2%} of the inputs, "
                f"largest real part {layer['largest_spectral_abscissa']:.4g} 1/ms"
            )
        if dynamics:
            low, high = dynamics["output_min"], dynamics["output_max"]
            text.append(f"outputs from {low:.4g} to {high:.4g}")
        if "largest_spectral_abscissa" in dynamics:
            largest, radius = (
                dynamics[f"largest_{n}"] for n in ("spectral_abscissa", "step_radius")
            )
            text.append(
                f"largest real part along the way {largest:.4g} 1/ms, of a step {radius:.4g} "
                "(each with the input held, a diagnostic: above 0 or 1 is not yet unstable)"
            )
        wrote = () if self.out is None else (self.out,)
        return Answer({"run": self.run_folder, **result}, text, stable or not self.check, wrote)


COMMANDS = Evaluate
