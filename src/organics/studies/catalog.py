"""The targets of `organics reproduce`. Imports nothing heavy."""

from organics.arguments import nearest
from organics.studies.harness.target import Target

_OURS = "ours"

PAPER: tuple[Target, ...] = (
    Target(
        name="fig1",
        title="Phase portraits of the two-dimensional circuit",
        claim="With positive drive there is a stable fixed point whatever the recurrent weight, "
        "and without rectification a strong one can add two unstable ones.",
        source="Figure 1",
        paper="b: 1 stable, 2 unstable; a, c to f: 1 stable, 0 unstable",
        minutes=0.1,
    ),
    Target(
        name="fig2",
        title="Identity recurrence as coupled damped oscillators",
        claim="With identity recurrence every circuit is a stable system of coupled damped "
        "oscillators; with n = 1 it also has a stable fixed point under negative and zero drive, "
        "whatever the recurrent weight. The energy along trajectories is ours.",
        source="Figure 2; the energy panels are ours",
        paper="stable for all parameters",
        minutes=0.5,
    ),
    Target(
        name="fig3",
        title="Time constants of the two-dimensional rectified circuit",
        claim="The normalized response is a stable fixed point whichever of the time constants "
        "is the longer one.",
        source="Figure 3",
        paper="one stable fixed point for tau_y =, < and > tau_a",
        minutes=0.1,
    ),
    Target(
        name="fig4",
        title="Convergence of Algorithm 1",
        claim="The iteration finds the steady state of circuits with general recurrence within a "
        "few steps.",
        source="Figure 4",
        paper="errors about 0 from iteration 5 on",
        minutes=0.1,
    ),
    Target(
        name="fig5",
        title="Stability of a trained network at every test input",
        claim="The circuits of a network that learns `W_r`, with a spectral norm of at most 1, are "
        "stable at every test input, in both layers.",
        source="Figure 5",
        paper="all stable; layer 1 from about -0.295 to -0.23 per ms",
        minutes=11.0,
        needs=("mnist",),
        network="two layers",
        trains=True,
    ),
    Target(
        name="fig6",
        title="Stability while training",
        claim="The circuits of a network that learns `W_r`, with a spectral norm of at most 1, are "
        "stable at every test input after every epoch of training.",
        source="Figure 6",
        paper="all stable; largest -0.28 to -0.22 (layer 1), -0.27 to -0.10 (layer 2) per ms",
        minutes=4.0,
        needs=("mnist",),
        network="two layers",
        trains=True,
    ),
    Target(
        name="fig7",
        title="Hidden states of the recurrent network",
        claim="The hidden states of trained networks stay bounded along the whole sequence.",
        source="Figure 7",
        paper="bounded: about -4 to 2 and -2 to 2",
        minutes=0.1,
        needs=("mnist", "trained runs"),
        looks_for_runs=True,
    ),
    Target(
        name="table1",
        title="Static classification of MNIST",
        claim="Circuits at rest classify MNIST as well as the paper says, and better than "
        "supralinear networks at rest.",
        source="Table 1",
        paper="circuits 98.1 to 98.2 %, supralinear networks of others, on a frozen code, 94.9 and "
        "95.2 %",
        minutes=25.0,
        needs=("mnist",),
        in_pieces=True,
        trains=True,
    ),
    Target(
        name="table2",
        title="Sequential MNIST",
        claim="As a recurrent network the circuit learns sequential MNIST about as well as an "
        "LSTM, without gradient clipping.",
        source="Table 2",
        paper="64 units: 97.7 % and 89.9 %",
        minutes=0.3,
        needs=("mnist", "trained runs"),
        looks_for_runs=True,
        alone=True,
    ),
    Target(
        name="table4",
        title="Parameters of the static layer",
        claim="The static layer has the paper's parameters, initialisation and constraints.",
        source="Table 4",
        minutes=0.1,
    ),
    Target(
        name="table5",
        title="Parameters of the recurrent layer",
        claim="The recurrent layer has the paper's parameters, initialisation and constraints.",
        source="Table 5",
        minutes=0.1,
    ),
    Target(
        name="table7",
        title="Hyperparameters",
        claim="Training has the paper's hyperparameters by default.",
        source="Table 7",
        minutes=0.1,
    ),
    Target(
        name="gradients",
        title="Gradients of backpropagation through time",
        claim="On one task and without clipping, the gradients of circuits stay smaller than those "
        "of a vanilla recurrent network and of an LSTM.",
        source="Section on training; the comparison is ours",
        minutes=0.7,
        trains=True,
    ),
    Target(
        name="theorem1",
        title="Unconditional stability with identity recurrence",
        claim="With `W_r = I` every circuit is stable, whatever its other parameters.",
        source="Theorem (unconditional stability), Section 4",
        paper="all stable, by proof",
        minutes=0.7,
    ),
    Target(
        name="theorem2d",
        title="Stability of the two-dimensional circuit",
        claim="For n = 1 and every `w_r > 0` there is a stable fixed point.",
        source="Theorem for n = 1, Sections 4 and 5",
        paper="all, by proof",
        minutes=0.2,
    ),
    Target(
        name="conjecture",
        title="The conjecture on general recurrence",
        claim="With the spectral norm of `W_r` and the norm of `z` at most 1 there is a stable "
        "steady state.",
        source="Conjecture, and the trials behind it",
        paper="100 % of trials at norms 1 and 2, fewer at 3",
        minutes=23.0,
        in_pieces=True,
    ),
    Target(
        name="normalization",
        title="Divisive normalization, and what follows from it",
        claim="With identity recurrence the steady state is the normalization equation: responses "
        "saturate, are suppressed by an orthogonal mask, and oscillate the faster the higher the "
        "contrast. They leave the equation gradually as the recurrence leaves the identity.",
        source="Sections 2-3; the ring is ours",
        paper="exactly normalization for W_r = I",
        minutes=0.1,
    ),
)
"""The paper's figures, tables and claims, in its order."""

OURS: tuple[Target, ...] = (
    Target(
        name="extremes",
        title="Circuits over ten decades",
        claim="No circuit is said to be at rest, or stable, that is not, with parameters spread "
        "over ten decades, in float32 and in float64.",
        source=_OURS,
        minutes=5.0,
        room="ours",
    ),
    Target(
        name="steady_states",
        title="Steady states of random circuits",
        claim="A steady state is found for every circuit within the conjecture's bounds, and long "
        "simulations end at the stable ones.",
        source=_OURS,
        minutes=20.0,
        room="ours",
    ),
    Target(
        name="degree",
        title="How many steady states random circuits have",
        claim="The signs of all steady states add up to the sign of `det W_r`, so that with "
        "`det W_r < 0` a stable state is never the only one.",
        source=_OURS,
        minutes=5.0,
        room="ours",
    ),
    Target(
        name="several_states",
        title="Several steady states",
        claim="Two stable states are possible within the bounds of the conjecture.",
        source=_OURS,
        minutes=15.0,
        room="ours",
    ),
    Target(
        name="identity",
        title="Identity recurrence near and far from rest",
        claim="With `W_r = I` nothing happens over contrast, rhythms have the window that a "
        "formula says, and circuits come to the closed form from far away.",
        source=_OURS,
        minutes=6.0,
        room="ours",
    ),
    Target(
        name="hopf",
        title="Oscillations that begin as contrast falls",
        claim="In random circuits with `W_r` of norm 3, most Hopf points that a stable state meets "
        "as contrast falls are supercritical: a stable rhythm begins.",
        source=_OURS,
        minutes=5.0,
        room="ours",
    ),
    Target(
        name="exceptions",
        title="Circuits without a stable steady state",
        claim="In each class of `W_r` that was tried there is a circuit within the bounds of the "
        "conjecture, of one or two neurons, that has no stable steady state.",
        source=_OURS,
        minutes=2.0,
        room="ours",
    ),
    Target(
        name="verdicts",
        title="Stability decided without eigenvalues",
        claim="The quick verdicts on stability are those of the eigenvalues, or none.",
        source=_OURS,
        minutes=15.0,
        room="ours",
    ),
    Target(
        name="mnist_static",
        title="Static classification with identity recurrence",
        claim="With `W_r = I` circuits at rest classify MNIST as well as the paper's, which learn "
        "`W_r`, and every circuit is stable at every test input.",
        source=_OURS,
        paper="98.1 to 98.2 %",
        minutes=50.0,
        needs=("mnist",),
        in_pieces=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="frozen_code",
        title="Static classification of one frozen code",
        claim="On the code of an autoencoder trained without labels, the setting of the "
        "supralinear networks in Table 1, circuits at rest are ahead of supralinear networks and "
        "of a dense layer.",
        source="ours; after Soo & Lengyel 2022, which Table 1 cites",
        paper="supralinear networks 94.9 %",
        minutes=70.0,
        needs=("mnist",),
        in_pieces=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="sequences",
        title="Sequences of 196 and 64 steps",
        claim="With as many units, epochs and images, circuits learn as much as every comparison "
        "model, without clipping.",
        source=_OURS,
        minutes=90.0,
        needs=("mnist",),
        alone=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="shared_protocol",
        title="Table 2 with one protocol for all networks",
        claim="On the full task, with the same tuning, epochs and batches for all, circuits are as "
        "accurate as every comparison model that reaches its published accuracy, without clipping.",
        source=_OURS,
        minutes=220.0,
        needs=("mnist",),
        in_pieces=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="own_data",
        title="The defaults on small data sets",
        claim="With no option at all, `organics train FILE` is as good as a linear model on "
        "vectors, and learns sequences of unequal length.",
        source=_OURS,
        minutes=6.0,
        alone=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="step_sizes",
        title="How fast neurons and modulators may be",
        claim="With `W_r = I` no training diverges, however large the step sizes.",
        source=_OURS,
        minutes=30.0,
        needs=("mnist",),
        alone=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="ablation",
        title="What makes the difference on long sequences",
        claim="On permuted images circuits learn more with modulated time constants, with two "
        "layers, and with `W_r = I` than with learned `W_r`.",
        source=_OURS,
        minutes=60.0,
        needs=("mnist",),
        in_pieces=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="hierarchy",
        title="Two areas with feedback",
        claim="In two areas with balanced feedback, responses, rhythms, coherence and "
        "communication change with contrast and feedback as in the preprint on hierarchies.",
        source="ours; findings of Pal et al. 2025",
        minutes=2.0,
        room="ours",
    ),
    Target(
        name="hierarchy_subspaces",
        title="Communication between areas",
        claim="Where the recurrent weights project onto a few patterns, areas share fewer "
        "dimensions than neurons within an area; and feedback decides whom V1 talks to.",
        source="ours; findings of Pal et al. 2025",
        minutes=1.0,
        room="ours",
    ),
    Target(
        name="perturbed",
        title="Identity recurrence, perturbed",
        claim="With a random symmetric perturbation of any size the circuit keeps a stable steady "
        "state; the border of limit cycles is that of explicit Euler steps.",
        source="ours; phase diagram of Morone et al. 2025",
        paper="limit cycles beyond a border",
        minutes=6.0,
        room="ours",
    ),
    Target(
        name="perturbed_open",
        title="Identity recurrence, perturbed without symmetry",
        claim="With symmetric perturbations and one pool the state that continues divisive "
        "normalization stays stable; how often it does otherwise is counted.",
        source=_OURS,
        minutes=3.0,
        room="ours",
    ),
    Target(
        name="patterns",
        title="Turing and Hopf patterns, travelling waves",
        claim="On a ring with structured recurrence patterns begin where the dispersion relation "
        "says, with its wavelength, frequency and speed.",
        source=_OURS,
        minutes=1.0,
        room="ours",
    ),
    Target(
        name="images",
        title="Normalization on noisy and faint images",
        claim="A small network with local normalization is ahead of a plain one of the same size "
        "on test images with noise and with lower contrast.",
        source=_OURS,
        needs=("mnist",),
        minutes=5.0,
        trains=True,
        room="ours",
    ),
    Target(
        name="recovery",
        title="Parameters from recordings",
        claim="From simulated recordings the parameters of circuits are recovered, with intervals "
        "that hold what they promise.",
        source=_OURS,
        minutes=6.0,
        room="ours",
    ),
    Target(
        name="memory",
        title="What holds a value",
        claim="A circuit that learns to hold a number does so by slowing y down, by closing its "
        "gains, or by several stable states, and switching mechanisms off tells which.",
        source=_OURS,
        minutes=10.0,
        alone=True,
        trains=True,
        room="ours",
    ),
    Target(
        name="overflow",
        title="Gradients that overflow",
        claim="With a unit drive, identity or semidefinite `W_r` and step sizes of at most 1, no "
        "gradient overflows at random initial weights and rates.",
        source=_OURS,
        minutes=10.0,
        room="ours",
    ),
    Target(
        name="schedules",
        title="Schedules of the learning rate",
        claim="There is a schedule that learns more in as many epochs than the paper's.",
        source=_OURS,
        minutes=15.0,
        alone=True,
        trains=True,
        room="ours",
    ),
)
"""Studies that go beyond the paper."""

TARGETS = (*PAPER, *OURS)
"""All of them."""


def named(names: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets of these names, in the catalog's order.

    Raises `ValueError` for a name that is not one.
    """
    known = {target.name for target in TARGETS}
    for name in names:
        if name not in known:
            raise ValueError(
                f"`targets` must be among {', '.join(t.name for t in TARGETS)}, not {name!r}"
                f"{nearest(name, known) or '.'}"
            )
    return tuple(target for target in TARGETS if target.name in names)
