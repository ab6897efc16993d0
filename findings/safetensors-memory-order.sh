#!/usr/bin/env bash
# safetensors.numpy.save, version 0.8.0: an array in column-major memory order is written as its
# memory lies, under its row-major shape. What is read back has the right shape, type and bytes, in
# the wrong places, and no word is said. Version 0.7.0 wrote the right values. Reported to the project
# by its users as issue 825, August 2026.
#
# Seen with safetensors 0.8.0 and 0.7.0, NumPy 2.4.6, Python 3.11:
#   0.7.0: column-major array read back as written: True
#   0.8.0: column-major array read back as written: False
#   0.8.0: after numpy.ascontiguousarray: True
#
# Such arrays come from a transpose, from numpy.asfortranarray, from MATLAB files, from
# jax.numpy.from_dlpack of a transposed tensor. Remedy: numpy.ascontiguousarray before saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cat > "$work/round_trip.py" <<'PROGRAM'
import numpy as np
import safetensors
import safetensors.numpy as st

rows = np.arange(12.0).reshape(3, 4)
columns = np.asfortranarray(rows)
name = safetensors.__version__
same = lambda array: np.array_equal(st.load(st.save({"a": array}))["a"], rows)
print(f"{name}: column-major array read back as written: {same(columns)}")
print(f"{name}: after numpy.ascontiguousarray: {same(np.ascontiguousarray(columns))}")
PROGRAM
for version in 0.7.0 0.8.0; do
  "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "numpy==2.4.6" "safetensors==$version"
  "$work/venv/bin/python" "$work/round_trip.py"
done > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
0.7.0: column-major array read back as written: True
0.7.0: after numpy.ascontiguousarray: True
0.8.0: column-major array read back as written: False
0.8.0: after numpy.ascontiguousarray: True
EXPECTED
echo "as described"
