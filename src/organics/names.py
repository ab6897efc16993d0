"""The values of options that more than one module uses."""

from typing import Literal

DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar-10"]
TaskName = Literal["smnist", "psmnist", "sdigits", "scifar"]
"""A data set as sequences."""

NumbersTaskName = Literal["adding", "flip-flop"]
ClassesTaskName = Literal[
    "copy",
    "match-to-sample",
    "match-to-category",
    "parametric",
    "paired-association",
    "dual-match",
    "perceptual-decision",
    "delayed-decision",
    "pulse-decision",
    "context-decision",
    "multisensory",
    "go-nogo",
    "anti-reach",
    "interval-discrimination",
    "ready-set-go",
]
MadeTaskName = Literal[NumbersTaskName, ClassesTaskName]
"""A task whose trials are made on the fly; numbers or classes are learned."""
Noise = Literal["fresh", "once"]
"""Noise after images: drawn anew every time, or once for all of them."""
Measure = Literal["loss", "accuracy", "squared_error"]
"""What says how good a network is."""

TargetKind = Literal["classes", "numbers"]
"""What is learned."""
ReadAt = Literal["last", "every"]
"""The steps of a sequence at which a network is read out."""

ModelName = Literal["organics", "mlp", "ssn"]
BaselineName = Literal[
    "lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "lem", "rnn"
]
SequenceModelName = Literal["organics", BaselineName]
OwnModelName = Literal[SequenceModelName, "mlp"]
"""A network for a user's data: of sequences, or not."""

StaticRecurrence = Literal["identity", "bounded"]
"""Recurrent weights of circuits at rest."""
Recurrence = Literal["free", StaticRecurrence, "semidefinite", "orthogonal"]
"""Recurrent weights of recurrent layers."""
LARGEST_ANGLE = 2.9845130209103035
"""Of rotations that orthogonal ones begin with, 0.95 pi; at pi their parameters are infinite."""
ImageRecurrence = Literal["free", StaticRecurrence]
"""Recurrent weights of recurrent layers on images."""
Drive = Literal["signed", "rectified", "unit"]
TimeConstants = Literal["learned", "fixed", "modulated", "modulated-together", "modulated-y"]
"""Time constants of recurrent layers; modulated ones follow the input and the potentials."""
MODULATED: dict[TimeConstants, tuple[int, int]] = {
    "modulated": (4, 4),
    "modulated-together": (4, 1),
    "modulated-y": (1, 1),
}
"""How many of the rates of y, a, b0 and b follow the input and the potentials, and how many sums of
these they follow; of the others, none."""
Mechanism = Literal["freeze", "integrate", "attract"]
"""What holds a value: `y` slows down; gains close, and `y` leaks as slowly as `sqrt(a)` is small;
or there are several stable states."""
Rectification = Literal["inside", "outside"]
PoolWeights = Literal["positive", "bounded"]
PoolReach = Literal["across", "within"]
Padding = Literal["same", "valid"]
Border = Literal["zeros", "periodic"]
"""What a convolution finds outside of the image."""
SupralinearDrive = Literal["weights", "one-to-one"]
SupralinearOutput = Literal["rates", "potentials"]

Backend = Literal["auto", "native", "scan"]
Memory = Literal["more", "less"]
"""How much memory training takes."""
ProductType = Literal["full", "bfloat16"]
"""Numbers that the matrix products of recurrent layers are of: as all others, or of 8 bits."""
SweepBackend = Literal["processes", "dask", "ray"]
"""Where many calls run: in processes of this machine, or on a cluster."""
Schedule = Literal["constant", "cosine", "step", "drops", "warmup-cosine", "trapezoid"]
"""Course of the learning rate."""
OptimizerName = Literal["adam", "adamw", "sgd", "adagrad"]

Abscissae = Literal["all", "largest", "none"]
"""Which spectral abscissae of many circuits are computed rather than bounded."""
ExportFormat = Literal["onnx", "torch", "stablehlo"]
"""File of a trained network."""

Method = Literal["explicit", "implicit"]
"""Solver of the differential equations."""

Figure = Literal["branches", "plane", "frequency"]
"""What a figure of `organics continue` shows."""
FeedbackForm = Literal["balanced", "additive"]
"""How feedback between areas enters the recurrent drive."""
HierarchyForm = Literal[FeedbackForm, "published"]
"""The same in a circuit file, where "published" has the published gates and trackers."""

Quantity = Literal["y", "a", "rate", "lfp"]
"""What was recorded: a potential, a firing rate, or a field potential."""
FittedRecurrence = Literal["identity", "free", "half", "feedback"]
"""Recurrent weights of a fitted circuit: the identity, any, `(I + K) / 2` with `|K| < 1`, or the
identity and additive feedback between neurons, weights >= 0."""
Samples = Literal["spectra", "courses"]
"""What the samples of a recording show: fluctuations at rest, or responses after an onset."""
