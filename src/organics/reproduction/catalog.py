"""The targets of `organics reproduce`, in the paper's order. Imports nothing heavy."""

from organics.reproduction.target import Target

TARGETS: tuple[Target, ...] = (
    Target(
        name="theorem1",
        title="Unconditional stability with identity recurrence",
        claim="With `W_r = I` every circuit is stable, whatever its other parameters.",
        source="Theorem (unconditional stability), Section 4",
        paper="all stable, by proof",
        minutes=2,
    ),
    Target(
        name="theorem2d",
        title="Stability of the two-dimensional circuit",
        claim="For n = 1 and every `w_r > 0` there is a stable fixed point.",
        source="Theorem for n = 1, Sections 4 and 5",
        paper="all, by proof",
        minutes=1,
    ),
    Target(
        name="conjecture",
        title="The conjecture on general recurrence",
        claim="With the spectral norm of `W_r` and the norm of `z` at most 1 there is a stable "
        "steady state.",
        source="Conjecture, and the trials behind it",
        paper="100 % of trials at norms 1 and 2, fewer at 3",
        minutes=12,
    ),
)
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
