#!/usr/bin/env bash
# JAX's persistent compilation cache, jax 0.10.2 with jaxlib 0.10.2: an entry that was cut short, as
# when a disk is full or a process is killed while it writes, is never replaced. Every later process
# says so in a warning, compiles again, and leaves the entry as it is, because the cache writes only
# where there is no file of that name. So one bad entry costs its compilation, and a warning, for ever.
#
# Seen with jax 0.10.2, NumPy 2.4.6, Python 3.11: what is below `EXPECTED`.
#
# Remedy: remove the folder of the cache; it is made again.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "jax==0.10.2" "jaxlib==0.10.2" "numpy==2.4.6"
cat > "$work/program.py" <<'PROGRAM'
import warnings

import jax

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    value = float(jax.jit(lambda x: 2 * x + 1)(3.0))
print(value, *(str(warning.message).split(" for ")[0] for warning in said))
PROGRAM
export JAX_COMPILATION_CACHE_DIR="$work/cache" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
export JAX_PLATFORMS=cpu
{
  for run in first second; do
    echo "$run process: $("$work/venv/bin/python" "$work/program.py")"
  done
  truncate --size 100 "$work"/cache/*-cache
  for run in third fourth; do
    echo "$run process, entry cut short: $("$work/venv/bin/python" "$work/program.py")"
    echo "bytes of the entry afterwards: $(stat --format %s "$work"/cache/*-cache)"
  done
} > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
first process: 7.0
second process: 7.0
third process, entry cut short: 7.0 Error reading persistent compilation cache entry
bytes of the entry afterwards: 100
fourth process, entry cut short: 7.0 Error reading persistent compilation cache entry
bytes of the entry afterwards: 100
EXPECTED
echo "as described"
