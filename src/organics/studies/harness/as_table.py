"""The picture of a target that is a table."""

from matplotlib.figure import Figure

from organics.plots import table
from organics.studies.harness.target import Outcome


def draw(outcome: Outcome) -> Figure:
    """The table."""
    assert outcome.table is not None
    return table(*outcome.table)
