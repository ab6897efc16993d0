#!/usr/bin/env bash
# JAX 0.10.2: each program that is compiled keeps an MLIR context of its own, about 1.5 MB, for as long
# as its jitted function lives. 200 additions of a constant hold 200 contexts and some 300 MB; the
# compiled code itself takes a small part of that. Making the context is about a third of the time of
# lowering and compiling so small a program, too.
#
# JAX 0.12.0.1 lets about ten programs share one: 19 contexts, 80 MB.
#
# Seen on Linux, x86-64, with Python 3.11 (0.10.2) and 3.13 (both): what is below `EXPECTED`, where
# memory is only compared with bounds. Whoever compiles thousands of programs in one process, as test
# suites do, can drop jitted functions, call `jax.clear_caches()`, or take the newer version. The tests
# of this project let a hundred programs share a context (tests/lowering.py).
#
# 0.12.0.1 needs Python 3.12 or later; with an older Python only 0.10.2 is looked at.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/program.py" <<'PROGRAM'
from pathlib import Path

import jax
import jax.numpy as jnp
from jax._src.interpreters.mlir import ir  # private: the only way to count contexts

PROGRAMS = 200


def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


x = jnp.float32(1)
jax.jit(lambda x: x - 1)(x)
before, kept = megabytes(), []
for i in range(PROGRAMS):
    kept.append(jax.jit(lambda x, i=i: x + i))
    kept[-1](x)
contexts, size = ir.Context._get_live_count(), megabytes() - before
print("jax", jax.__version__)
print("a context for each program:", contexts >= PROGRAMS, "fewer than 30:", contexts < 30)
print("more than 200 MB:", size > 200, "less than 120:", size < 120)
kept.clear()
left = ir.Context._get_live_count()
print("left without the functions, at most 2:", left <= 2)
PROGRAM
versions=(0.10.2)
python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))' && versions+=(0.12.0.1)
for version in "${versions[@]}"; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check \
    "jax==$version" "jaxlib==$version"
  JAX_PLATFORMS=cpu "$work/$version/bin/python" "$work/program.py"
done > "$work/seen"
cat > "$work/expected" <<'EXPECTED'
jax 0.10.2
a context for each program: True fewer than 30: False
more than 200 MB: True less than 120: False
left without the functions, at most 2: True
EXPECTED
if [ "${#versions[@]}" = 2 ]; then
  cat >> "$work/expected" <<'EXPECTED'
jax 0.12.0.1
a context for each program: False fewer than 30: True
more than 200 MB: False less than 120: True
left without the functions, at most 2: True
EXPECTED
fi
diff "$work/expected" "$work/seen"
echo "as described"
