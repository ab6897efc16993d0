"""A network as a graph of ONNX, whose loop over time is one `Scan` operator."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from organics.exports import as_torch
from organics.exports.export import Network
from organics.exports.packages import require


def require_packages() -> None:
    """Raises `ValueError` if PyTorch, which converts, or a package of ONNX is missing."""
    require("onnx", "torch", "onnx", "onnxscript")


def make(network: Network) -> bytes:
    """The serialised graph from `input` to `output`.

    Raises `ValueError` as `as_torch.make` does.
    """
    import torch

    program = as_torch.program_of(network)
    with _quiet(), torch.no_grad():  # the loop operator has no gradients
        made = torch.onnx.export(
            program, input_names=["input"], output_names=["output"], dynamo=True, verbose=False
        )
    assert made is not None
    proto = made.model_proto
    for graph in (proto.graph, *proto.functions):
        _strip(graph)
    return proto.SerializeToString()


def runner(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function that runs the graph in `file`, and who runs it: ONNX Runtime, or if it is not
    installed the reference implementation in ONNX."""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        words = f"onnxruntime {onnxruntime.__version__}"
    else:
        import onnx
        from onnx.reference import ReferenceEvaluator

        session, words = ReferenceEvaluator(str(file)), f"onnx {onnx.__version__}"
    return lambda x: np.asarray(session.run(None, {"input": x})[0]), words


def _strip(graph: Any) -> None:
    """Remove the converter's remarks, such as the file and line on this machine of each step."""
    described = (*graph.node, *graph.value_info)
    for one in (*described, *getattr(graph, "initializer", ()), graph):
        del one.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's progress, and its remarks about packages that it could also use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
