"""A trained model with everything that is needed to use it on raw inputs."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from organics.data.own.content import Content, Part, checked, checked_inputs
from organics.data.own.meaning import meaning
from organics.data.own.preparation import Preparation
from organics.models import Model, Plain, Predictor, SequenceClassifier, Target
from organics.models.plain import takes
from organics.names import ReadAt, TargetKind
from organics.nn.protocols import SequenceLayer
from organics.training.checkpoint import require_storable
from organics.training.choices import chosen_for, facts_of, require_no_share, with_settings
from organics.training.config import AnyConfig, GivenConfig
from organics.training.constants import constants
from organics.training.evaluation import load_model, outputs_for
from organics.training.loop import run
from organics.training.report import NumbersReport, Outcome, Report, TaskReport
from organics.training.run_folder import RunFolder
from organics.training.step import floating_dtype
from organics.training.task import Given, task_of

_ARRAYS = "the arrays"


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model that takes raw inputs.

    Attributes
        model: of the best epoch; it takes prepared inputs.
        preparation: how inputs are prepared; None for images, whose pixels are from 0 to 1.
        config: the settings of the run.
        report: its outcome; None if the run is not complete.
    """

    model: Predictor
    preparation: Preparation | None
    config: AnyConfig
    report: Report | NumbersReport | TaskReport | None

    @property
    def classes(self) -> list[Any]:
        """The classes, in the order of `probabilities`; empty for numbers."""
        target = self.model.target
        if target.kind == "numbers":
            return []
        return self._labels(np.arange(target.size)).tolist()

    def predict(self, x: Any, lengths: Any = None) -> np.ndarray:
        """The classes, or numbers in the units of `y`, of raw inputs.

        `x` has shape (count, m) or, for sequences, (count, time, m) with any number of steps;
        `lengths` is the number of steps of each sequence, (count,), and later ones may be anything;
        without it, all have full length. The result has shape (count,) for classes and (count, k)
        for numbers, with an axis of time in the middle if they are read at every step.

        Raises `ValueError`, naming the argument and the row, for inputs of another shape or type,
        or that are not finite; and if the model's outputs are not finite, as those of inputs that
        are lost in a layer that `may_be_lost`.
        """
        outputs = self._outputs(x, lengths)
        of_classes = self.model.target.kind == "classes"
        lost = np.array([not np.all(np.isfinite(one)) for one in outputs])
        if np.any(lost):
            what = "scores of the classes" if of_classes else "numbers"
            raise ValueError(
                f"`x`, row {np.argmax(lost)}: the model's {what} are not finite "
                f"({np.sum(lost)} of {len(lost)} rows)."
            )
        if of_classes:
            return self._labels(np.argmax(outputs, axis=-1))
        return outputs if self.preparation is None else self.preparation.numbers(outputs)

    def probabilities(self, x: Any, lengths: Any = None) -> np.ndarray:
        """The probability of each class, (count, classes), with an axis of time in the middle if
        they are read at every step; NaN where the scores are not finite. Arguments and other errors
        are those of `predict`.

        Raises `ValueError` also if the model predicts numbers.
        """
        if self.model.target.kind != "classes":
            raise ValueError("`probabilities` are of classes; this model predicts numbers.")
        scores = np.asarray(self._outputs(x, lengths), np.float64)
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def _labels(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self.preparation is None else self.preparation.labels(numbers)

    def _outputs(self, x: Any, lengths: Any) -> np.ndarray:
        part = checked_inputs(x, lengths)
        shape = task_shape(self.config)
        if part.x.ndim != len(shape) + 1 or part.x.shape[-1] != shape[-1]:
            words = ("count", "time", shape[-1]) if len(shape) == 2 else ("count", shape[-1])
            raise ValueError(f"`x` must have shape {words}, not {part.x.shape}.".replace("'", ""))
        prepare = self.preparation or Preparation((0.0,) * shape[-1], (1.0,) * shape[-1])
        return outputs_for(self.model, prepare.inputs(_ARRAYS, "x", part), part.lengths)


def load_run(folder: str | Path, model: Any = None) -> Fitted:
    """The best model of a run, ready to predict on raw inputs, from the files in its folder; the
    data need not be there.

    `model` is the untrained model, of a run that began with `fit`: an Equinox module is code, and a
    folder has only its arrays.

    Raises `ValueError` if the folder does not hold a run with a model, or is damaged, if `model` is
    missing or another one than that of the run.
    """
    run_folder = RunFolder.open(folder)
    run_folder.verify()
    config = run_folder.config
    if isinstance(config, GivenConfig):
        if model is None:
            raise ValueError(
                f"`model` must be given: the run in {folder} trained a {config.model} that was "
                "given in Python."
            )
        _require_alike(model, config, run_folder.path)
        task = Given(config, _as_model(model, _target(config), config.seed))
    elif model is not None:
        raise ValueError(f"`model` must not be given: the run in {folder} has its own.")
    else:
        task = task_of(config)
    report = run_folder.load_report()
    return Fitted(
        model=load_model(run_folder, task=task),
        preparation=preparation_of(run_folder),
        config=config,
        report=None if report is None else Outcome.from_document(report),
    )


def preparation_of(folder: RunFolder) -> Preparation | None:
    """How inputs of the model of a run are prepared; None for images.

    Raises `ValueError` if that is damaged.
    """
    document = folder.load_preparation()
    try:
        return None if document is None else Preparation.from_document(document)
    except ValueError as error:
        raise ValueError(f"the model of {folder.path} has no valid preparation: {error}") from None


def fit(
    model: Any,
    x: Any,
    y: Any,
    *,
    lengths: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    lengths_test: Any = None,
    target: TargetKind | None = None,
    at: ReadAt | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    devices: int = 1,
    on_epoch: Callable[[int, Model], None] | None = None,
    **settings: Any,
) -> Fitted:
    """Train a model on arrays, test it, and return it ready to predict on raw inputs.

    Arguments
        model: a model of `organics.models`, or any Equinox module with the methods of
            `organics.models.Predictor`; a recurrent layer, which gets a linear readout; or a module
            that is called with one input, without a key or a state, as `organics.models.Plain` is.
            Its parameters should be float32.
        x: inputs, (count, m) or, for sequences, (count, time, m); they are standardised.
        y: classes, of any hashable type, or real numbers, (count,) or (count, k), for each example,
            or with an axis of time after the first for each step.
        lengths: number of steps of each sequence, (count,); later ones, even NaN, change nothing.
            Not for a module that is called with one input.
        x_test, y_test, lengths_test: the test set; by default a share of the examples. Without
            lengths it may have another number of steps, but not for such a module.
        target, at: "classes" or "numbers"; "last" or "every" step. By default what the model's
            `target` says, or else what `y` looks like.
        out: folder for the files of the run, as in `train`; by default nothing is kept.
        resume, progress, devices, on_epoch: as in `train`.
        settings: fields of `organics.training.GivenConfig`, such as `epochs`, `learning_rate`,
            `test_share` or `seed`; by default they are chosen by the number of examples.

    Raises `ValueError`, naming array and row, for arrays that cannot be learned from, or that do
    not fit the model; and whatever `train` raises.
    """
    if not isinstance(model, eqx.Module):
        raise ValueError(f"`model` must be an Equinox module, not {model!r:.100}.")
    _require_trainable(model)
    test = None
    if x_test is not None or y_test is not None:
        if x_test is None or y_test is None:
            raise ValueError("`x_test` and `y_test` must be given together.")
        if lengths is not None and lengths_test is None:
            raise ValueError("`lengths_test` must be given, as `lengths` are.")
        if lengths is None and lengths_test is not None:
            raise ValueError("`lengths` must be given, as `lengths_test` are.")
        test = Part(x_test, y_test, lengths_test)
    elif lengths_test is not None:
        raise ValueError("`lengths_test` must be given with `x_test`.")
    content = checked(Content(_ARRAYS, Part(x, y, lengths), test))
    require_no_share(content, settings)
    _require_called_so(model, content, lengths is not None)
    own: Target | None = model.target if isinstance(model, Predictor) else None
    target = target or (own and own.kind)
    at = at or (own and own.at)
    meant = meaning(content, target, at)
    wanted = Target(meant.target, meant.outputs, meant.at)
    if own is not None and own != wanted:
        raise ValueError(f"`model` is for {_words(own)}, but `y` holds {_words(wanted)}.")
    known = {
        "data_sha256": _sum_of(content),
        "model": type(model).__name__,
        "constants": tuple(constants(model)),
        **facts_of(meant),
    }
    config = with_settings(GivenConfig, chosen_for(meant), settings, known)
    predictor = _as_model(model, wanted, config.seed)
    _require_taking(predictor, content.train)
    task = Given(config, predictor, content)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run" if out is None else Path(out)
        run(task, folder, resume, progress, devices, on_epoch)
        return load_run(folder, model)


def task_shape(config: AnyConfig) -> tuple[int, ...]:
    """The shape of one input of a run."""
    return config.input_shape if isinstance(config, GivenConfig) else task_of(config).input_shape()


def _as_model(model: Any, target: Target, seed: int) -> Predictor:
    if isinstance(model, Predictor):
        return model
    if isinstance(model, SequenceLayer):
        kind = np.dtype(floating_dtype(model)).type
        return SequenceClassifier(model, target=target, key=jr.key(seed), dtype=kind)
    return Plain(model, target)


def _require_called_so(model: eqx.Module, content: Content, given: bool) -> None:
    """Refuse lengths, whether they are `given` or those of parts with other numbers of steps, for a
    module that is called with one input."""
    module = model.module if isinstance(model, Plain) else model
    has_methods = module is model and isinstance(model, Predictor | SequenceLayer)
    if content.train.lengths is None or has_methods or takes(module, 2):
        return
    if given:
        raise ValueError("`lengths` must not be given: `model` is called with one input.")
    assert content.test is not None
    raise ValueError(
        f"`x_test` must have as many steps as `x`, {content.train.lengths[0]}, not "
        f"{content.test.lengths[0]}: `model` is called with one input, without `lengths`."
    )


def _require_taking(model: Predictor, part: Part) -> None:
    """Refuse a module that cannot be called with an input, and where they are given with its
    length."""
    if not isinstance(model, Plain):
        return
    shape = np.shape(part.x)[1:]
    given = [jax.ShapeDtypeStruct((1, *shape), np.float32)]
    if part.lengths is not None:
        given.append(jax.ShapeDtypeStruct((1,), np.int32))
    try:
        eqx.filter_eval_shape(lambda model, given: model.predict(*given), model, given)
    except Exception as error:  # whatever the module raises
        raise ValueError(
            f"`model` must take an input of shape {shape} alone, without a key or a state; it "
            f"raised {type(error).__name__}: {str(error).strip().splitlines()[0]:.200}"
        ) from error


def _require_trainable(model: eqx.Module) -> None:
    """Refuse parameters that cannot be trained or kept."""
    try:
        require_storable(model)
    except ValueError as error:
        raise ValueError(f"`model`: {error}") from None
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_inexact_array))
    if not leaves:
        raise ValueError("`model` has no parameters: no array in it is of floating-point numbers.")
    for where, leaf in leaves:
        if jnp.iscomplexobj(leaf):
            name = jax.tree_util.keystr(where, simple=True, separator=".")
            raise ValueError(f"`model`: `{name}` is complex; keep its real and imaginary parts.")


def _require_alike(model: Any, config: GivenConfig, path: Path) -> None:
    """Refuse a model that is not that of the run; older and newer versions of a class may have
    other constants."""
    here, there = dict(constants(model)), dict(config.constants)
    for name in sorted(here.keys() & there.keys()):
        if here[name] != there[name]:
            what = f"`{name}`" if name else "its class"
            raise ValueError(
                f"`model` is another one than that of the run in {path}: {what} is {here[name]}, "
                f"in the run {there[name]}."
            )


def _target(config: GivenConfig) -> Target:
    return Target(config.target, config.outputs, config.at)


def _words(target: Target) -> str:
    return (
        f"{target.size} {target.kind} at the last step"
        if target.at == "last"
        else (f"{target.size} {target.kind} at every step")
    )


def _sum_of(content: Content) -> str:
    """A check sum of the arrays."""
    total = hashlib.sha256()
    for part in (content.train, content.test):
        for array in part or ():
            if array is None:
                total.update(b"none")
                continue
            total.update(f"{array.dtype} {array.shape}".encode())
            if array.dtype.kind == "O":
                total.update(repr(array.tolist()).encode())
            else:
                total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
