"""The targets of `organics reproduce`, in the paper's order. Imports nothing heavy."""

from organics.reproduction.target import Target

TARGETS: tuple[Target, ...] = ()
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
