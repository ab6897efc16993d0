"""The words that options can be, where more than one module speaks of them."""

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
"""Of circuits in time."""
Drive = Literal["signed", "rectified", "unit"]
TimeConstants = Literal["learned", "fixed"]
Rectification = Literal["inside", "outside"]
PoolWeights = Literal["positive", "bounded"]
PoolReach = Literal["across", "within"]
Padding = Literal["same", "valid"]

Backend = Literal["auto", "native", "scan"]
Memory = Literal["more", "less"]
"""That training takes."""
SweepBackend = Literal["processes", "dask", "ray"]
"""Who makes many calls: processes of this machine, or the workers of a cluster."""
Schedule = Literal["constant", "cosine", "step", "drops", "warmup-cosine", "trapezoid"]
"""Of a learning rate."""
OptimizerName = Literal["adam", "sgd", "adagrad"]

Method = Literal["explicit", "implicit"]
"""Of solving differential equations."""
