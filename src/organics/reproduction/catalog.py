"""The targets of `organics reproduce`, in the paper's order. Imports nothing heavy."""

from organics.reproduction.target import Target

TARGETS: tuple[Target, ...] = (
    Target(
        name="fig5",
        title="Stability of a trained network at every test input",
        claim="The circuits of a trained network are stable at every test input, in both layers.",
        source="Figure 5",
        paper="all stable; layer 1 from about -0.295 to -0.23 per ms",
        minutes=8,
        needs=("mnist",),
    ),
    Target(
        name="fig6",
        title="Stability while training",
        claim="The circuits are stable at every test input after every epoch of training.",
        source="Figure 6",
        paper="all stable; largest -0.28 to -0.22 (layer 1), -0.27 to -0.10 (layer 2) per ms",
        minutes=20,
        needs=("mnist",),
    ),
    Target(
        name="table1",
        title="Static classification of MNIST",
        claim="Circuits at rest classify MNIST better than supralinear networks at rest.",
        source="Table 1",
        paper="circuits 98.1 to 98.2 %, supralinear networks 94.9 and 95.2 %",
        minutes=35,
        needs=("mnist",),
    ),
    Target(
        name="gradients",
        title="Gradients of backpropagation through time",
        claim="Backpropagation through time needs no clipping of gradients: they stay smaller than "
        "those of a vanilla recurrent network and of an LSTM.",
        source="Section on training; the comparison is ours",
        minutes=3,
    ),
)
"""All of them."""


def named(names: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of these names, in the catalog's order.

    Raises `ValueError` for a name that is not one.
    """
    known = {target.name for target in TARGETS}
    for name in names:
        if name not in known:
            raise ValueError(
                f"`targets` must be among {', '.join(t.name for t in TARGETS)}, not {name!r}."
            )
    return tuple(target for target in TARGETS if target.name in names)
