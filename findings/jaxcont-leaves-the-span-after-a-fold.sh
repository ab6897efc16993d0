#!/usr/bin/env bash
# jaxcont 0.4.0: `continuation(problem, p_span=(p_start, p_end))` calls `p_span` the range of the
# parameter, but only `p_end` ends a branch. A branch that turns back at a fold leaves the range
# through `p_start` and goes on until `max_steps` are used:
#
# * for `du/dt = 1 - p - u^2` from u = -1 over (0, 2), which has its fold at p = 1, the smallest
#   parameter of the branch is below -20, and all of `max_steps` points come back;
# * for `du/dt = p + u - u^3` from u = -1 over (0, 2) the second of the two folds that are reported
#   is at p = -0.385, outside the range.
#
# Seen with the version above, JAX 0.10.2, Python 3.11: what is below `EXPECTED`.
#
# Whoever counts events in a range has to filter them. `organics.continuation` ends a branch at either
# bound; `benchmarks/branches.py` compares events within the range alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "jaxcont==0.4.0" "jax==0.10.2"
cat > "$work/program.py" <<'PROGRAM'
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import jaxcont
import numpy as np


def follow(f, start, steps):
    problem = jaxcont.bif_problem(f, jnp.array([start]), 0.0)
    settings = jaxcont.ContinuationPar(max_steps=steps)
    return jaxcont.continuation(
        problem, p_span=(0.0, 2.0), settings=settings, events=[jaxcont.Fold()]
    )


branch = follow(lambda u, p, args: 1 - p - u**2, -1.0, 400)
p = np.asarray(branch.branch.params)
print("one fold: smallest parameter below -20:", bool(p.min() < -20), "points:", len(p))
branch = follow(lambda u, p, args: p + u - u**3, -1.0, 400)
print("two folds at:", sorted(round(float(event.p), 3) for event in branch.events))
PROGRAM
(cd "$work" && JAX_PLATFORMS=cpu venv/bin/python program.py) > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
one fold: smallest parameter below -20: True points: 401
two folds at: [-0.385, 0.385]
EXPECTED
echo "as described"
