#!/usr/bin/env bash
# neurogym 2.3.1, `DelayMatchCategory-v0`: with its default of two inputs nobody can do better than
# chance. A direction is shown as (1 + cos(theta_i - direction)) / 2, for the angles theta_i = 0 and pi,
# and the categories are the directions from 0 to pi and from pi to 2 pi. The cosine is the same for a
# direction and its mirror image, which is in the other category. So without noise each sample of one
# category has a sample of the other with the same inputs. With `dim_ring=3` it has not.
#
# The wanted answers come with the trials all the same, so that nothing says why a network does not learn. `match-to-category` of `organics.data.tasks` has inputs for the middles of the two halves.
#
# Besides, the package needs PyTorch to be imported, which is not among its requirements.
#
# Seen with the version above, NumPy 2.2.6, gymnasium 0.29.1, PyTorch 2.13.0, Python 3.11: what is below
# `EXPECTED`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "neurogym==2.3.1" "numpy==2.2.6" "gymnasium==0.29.1" "torch==2.13.0"
cat > "$work/program.py" <<'PROGRAM'
import neurogym
import numpy as np


def samples(environment, category, count=2000):
    """What is shown of the sample, without noise."""
    shown = []
    for _ in range(count):
        environment.new_trial(sample_category=category)
        shown.append(environment.view_ob("sample")[0])
    return np.array(shown)


for inputs in (2, 3):
    made = neurogym.make("DelayMatchCategory-v0", sigma=0.0, dim_ring=inputs).unwrapped
    made.reset(seed=0)
    first, second = samples(made, 0), samples(made, 1)
    apart = np.linalg.norm(first[:, None] - second[None], axis=2).min(axis=1)
    print(f"{inputs} inputs: from a sample to the next of the other category, at most {apart.max():.1f}")
PROGRAM
(cd "$work" && venv/bin/python -W ignore program.py) > "$work/seen" 2> "$work/errors" \
  || { cat "$work/errors"; exit 1; }
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
2 inputs: from a sample to the next of the other category, at most 0.0
3 inputs: from a sample to the next of the other category, at most 0.9
EXPECTED
echo "as described"
