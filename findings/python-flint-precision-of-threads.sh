#!/usr/bin/env bash
# python-flint 0.9.0: the working precision, `flint.ctx.prec`, is one for all threads of a process, and
# `with ctx.workprec(bits)` saves and restores that one. Where the blocks of two threads overlap,
#
# * a thread inside a block computes with the precision of another: within `workprec(400)` it is 53
#   bits once the thread that began earlier has left its block. Balls still contain the true numbers,
#   but their radii are those of 53 bits;
# * the precision is another than at first when both blocks are left, and stays so: 200 bits, those of
#   the block that began first.
#
# No word is said. So programs that compute with balls in several threads may get wide balls, or work
# at more bits than they ask for, depending on the moment.
#
# Seen with the version above, Python 3.11: what is below `EXPECTED`.
#
# Remedy: a lock around every block (src/organics/proofs/precision.py), or processes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "python-flint==0.9.0"
cat > "$work/threads.py" <<'PROGRAM'
import threading

import flint
from flint import arb, ctx

inside_first, inside_second, outside_first = (threading.Event() for _ in range(3))
said = []


def first():
    with ctx.workprec(200):
        inside_first.set()
        inside_second.wait()
    outside_first.set()


def second():
    inside_first.wait()
    with ctx.workprec(400):
        inside_second.set()
        said.append(f"within workprec(400): {ctx.prec} bits")
        outside_first.wait()
        said.append(f"still within it: {ctx.prec} bits")
        said.append(f"pi to 100 bits: {bool(arb.pi().rad() < arb(2) ** -100)}")


print(f"python-flint {flint.__version__}, at first {ctx.prec} bits")
both = [threading.Thread(target=one) for one in (first, second)]
for thread in both:
    thread.start()
for thread in both:
    thread.join()
print("\n".join(said))
print(f"after both: {ctx.prec} bits")
PROGRAM
"$work/venv/bin/python" "$work/threads.py" > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
python-flint 0.9.0, at first 53 bits
within workprec(400): 400 bits
still within it: 53 bits
pi to 100 bits: False
after both: 200 bits
EXPECTED
echo "as described"
