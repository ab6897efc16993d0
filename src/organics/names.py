"""The values of options that more than one module uses."""

from typing import Literal

DatasetName = Literal["digits", "mnist", "fashion-mnist"]
TaskName = Literal["smnist", "psmnist", "sdigits"]
"""A data set as sequences."""

ModelName = Literal["organics", "mlp", "ssn"]
BaselineName = Literal[
    "lstm", "antisymmetric", "antisymmetric-gated", "cornn", "lipschitz", "lem", "rnn"
]
SequenceModelName = Literal["organics", BaselineName]

StaticRecurrence = Literal["identity", "bounded"]
"""Recurrent weights of circuits at rest."""
Recurrence = Literal["free", StaticRecurrence, "semidefinite"]
"""Recurrent weights of recurrent layers."""
Drive = Literal["signed", "rectified", "unit"]
TimeConstants = Literal["learned", "fixed"]
Rectification = Literal["inside", "outside"]
PoolWeights = Literal["positive", "bounded"]
PoolReach = Literal["across", "within"]
Padding = Literal["same", "valid"]

Backend = Literal["auto", "native", "scan"]
Memory = Literal["more", "less"]
"""How much memory training takes."""
SweepBackend = Literal["processes", "dask", "ray"]
"""Where many calls run: in processes of this machine, or on a cluster."""
Schedule = Literal["constant", "cosine", "step", "drops", "warmup-cosine", "trapezoid"]
"""Course of the learning rate."""
OptimizerName = Literal["adam", "sgd", "adagrad"]

Method = Literal["explicit", "implicit"]
"""Solver of the differential equations."""

FeedbackForm = Literal["balanced", "additive"]
"""How feedback between areas enters the recurrent drive."""
