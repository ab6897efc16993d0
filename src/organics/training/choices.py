"""Settings for a user's data that fit its size."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from organics.arguments import nearest
from organics.data.own.content import Content
from organics.data.own.meaning import Meaning, meaning
from organics.data.own.read import read
from organics.training.config import FileConfig, OwnConfig
from organics.training.task import Own, sums_of

_Config = TypeVar("_Config", bound=OwnConfig)

_STEPS = 2000  # that small data sets get
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 100
_TRAIN = "_TRAIN"


def file_config(path: str | Path, test: str | Path | None = None, **settings: Any) -> FileConfig:
    """The settings of a run on a file of examples (`.npz`, `.csv` or `.ts`), for `train`.

    What is not among the `settings`, which are fields of `FileConfig`, is chosen by what the file
    holds and by its size. `test` is another file, with the test set; for a file `NAME_TRAIN.ts`
    with `NAME_TEST.ts` beside it, that one.

    Raises `ValueError`, naming file, array or column, and row, if it cannot be learned from, and
    `OSError`, naming the file, if it cannot be read.
    """
    return task_of_file(path, test, **settings).config


def task_of_file(path: str | Path, test: str | Path | None = None, **settings: Any) -> Own:
    """The task with the settings of `file_config`, and the content of the file."""
    path = Path(path).expanduser().resolve()
    other = _test_beside(path) if test is None else Path(test).expanduser().resolve()
    digest = sums_of(path, other)
    content = read(path, other)
    require_no_share(content, settings)
    meant = meaning(content, settings.pop("target", None), settings.pop("at", None))
    facts = {
        "data": str(path),
        "test_data": "" if other is None else str(other),
        "data_sha256": digest,
        **facts_of(meant),
    }
    chosen = {**chosen_for(meant), **_network(meant)}
    return Own(with_settings(FileConfig, chosen, settings, facts), content)


def with_settings(
    kind: type[_Config], chosen: dict[str, Any], settings: dict[str, Any], facts: dict[str, Any]
) -> _Config:
    """The settings of a run: what was chosen, unless it is given, and what follows from the data.

    Raises `ValueError` for a setting that there is not, or that follows from the data.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for name in settings:
        if name not in names:
            raise ValueError(f"there is no setting `{name}`{nearest(name, names) or '.'}")
        if name in facts:
            raise ValueError(f"`{name}` must not be given: it follows from the data.")
    return kind(**{**chosen, **settings, **facts})


def require_no_share(content: Content, settings: dict[str, Any]) -> None:
    """Refuse a share of test examples where there is a test set."""
    if content.test is not None and "test_share" in settings:
        raise ValueError(f"{content.source}: `test_share` must not be given: there is a test set.")


def facts_of(meant: Meaning) -> dict[str, Any]:
    """The settings that say what is learned."""
    return {name: getattr(meant, name) for name in ("target", "at", "steps", "features", "outputs")}


def chosen_for(meant: Meaning) -> dict[str, Any]:
    """Epochs, batch size and learning rate for so many examples."""
    count = len(meant.train.x)
    batch = 16 if count < 200 else 32 if count < 5_000 else 128 if count < 50_000 else 256
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, round(_STEPS * batch / count)))
    return {"batch_size": batch, "epochs": epochs, "learning_rate": 1e-2 if meant.steps else 3e-3}


def _network(meant: Meaning) -> dict[str, Any]:
    """The size of the network."""
    if meant.steps:
        return {"units": 32 if len(meant.train.x) < 1_000 else 64}
    width = min(256, max(16, 2 * meant.features))
    return {"units": 50, "encoder": (width, min(width, 40))}


def _test_beside(path: Path) -> Path | None:
    """The test set that the time series archives have beside a training set."""
    if path.suffix.lower() != ".ts" or not path.stem.endswith(_TRAIN):
        return None
    other = path.with_name(path.name.replace(_TRAIN, "_TEST"))
    return other if other.exists() else None


def in_words(task: Own) -> list[str]:
    """What was found in the file, and what was chosen."""
    config, part = task.config, task.content.train
    kind = "vectors"
    if config.steps:
        ends = [config.steps] if part.lengths is None else part.lengths
        least, most = int(min(ends)), int(max(ends))
        kind = f"sequences of {f'{least} to ' if least < most else ''}{most} steps"
    classes = meaning(task.content, config.target, config.at).names
    learned = f"{config.outputs} numbers" if config.outputs > 1 else "a number"
    if classes:
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        learned = f"{len(classes)} classes ({shown})"
    tested = (
        f"{config.test_share:.0%} of them"
        if task.content.test is None
        else (f"{len(task.content.test.x):,} others")
    )
    where = " at every step" if config.at == "every" else ""
    size = "-".join(map(str, config.sizes))
    return [
        f"{Path(config.data).name}: {len(part.x):,} {kind}, {config.features} features; learned: "
        f"{learned}{where}; {tested} test",
        f"{config.model} of {size} units, {config.epochs} epochs of batches of "
        f"{config.batch_size}, learning rate {config.learning_rate:g}",
    ]
