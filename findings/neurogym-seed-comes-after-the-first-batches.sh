#!/usr/bin/env bash
# neurogym 2.3.1, `neurogym.Dataset`, which makes batches of trials:
#
# * The first batches do not depend on the seed. The constructor fills a cache with trials of
#   environments that it has just seeded from the operating system, whatever seed they had; `seed(0)`
#   afterwards is heard when the cache is filled again. For `DelayMatchSample-v0`, 4 sequences of 50
#   steps, two data sets with the same seed differ in their first 125 batches and agree from then on.
# * A batch is a view of that cache. One that is kept changes when the cache is filled again, after
#   125 further batches.
#
# Besides, the package needs PyTorch to be imported, which is not among its requirements.
#
# Seen with the version above, NumPy 2.2.6, gymnasium 0.29.1, PyTorch 2.13.0, Python 3.11: what is below
# `EXPECTED`. Whoever wants the same trials again has to drop the first cache, or call `_cache()`, and
# copy what is kept. Trials of `organics.data.tasks` are functions of the seed and their number.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
install() { "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install "neurogym==2.3.1" "numpy==2.2.6"
cat > "$work/alone.py" <<'PROGRAM'
try:
    import neurogym  # noqa: F401
except ModuleNotFoundError as error:
    print("without PyTorch:", error)
PROGRAM
cat > "$work/program.py" <<'PROGRAM'
import neurogym
import numpy as np


def data_set():
    return neurogym.Dataset("DelayMatchSample-v0", batch_size=4, seq_len=50)


def inputs(count):
    """Of so many batches; the seed is given before the first is asked for."""
    data = data_set()
    data.seed(0)
    return [data()[0].copy() for _ in range(count)]


pairs = zip(inputs(250), inputs(250), strict=True)
equal = [bool(np.array_equal(one, other)) for one, other in pairs]
first = equal.index(True)
print("same seed: batches that differ:", first, "all later ones agree:", all(equal[first:]))

data = data_set()
kept, _ = data()
copy, further = kept.copy(), 0
while np.array_equal(kept, copy):
    data()
    further += 1
print("a batch that is kept changes after", further, "further ones")
PROGRAM
{
  "$work/venv/bin/python" "$work/alone.py"
  install "torch==2.13.0"
  (cd "$work" && venv/bin/python -W ignore program.py)
} > "$work/seen" 2> "$work/errors" || { cat "$work/errors"; exit 1; }
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
without PyTorch: No module named 'torch'
same seed: batches that differ: 125 all later ones agree: True
a batch that is kept changes after 125 further ones
EXPECTED
echo "as described"
