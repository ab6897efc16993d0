#!/usr/bin/env bash
# aeon 1.6.0 reads the text format of the time-series archives (`.ts`). On valid files:
#
# * A class name that contains "nan" comes back with "NaN" in it: the line is searched for missing
#   values before it is split, and the replacement goes through the label, too. Names are also
#   lowered first, so `Nancy` is read as `NaNcy` and `Paris` as `paris`. Two names that differ
#   only in case become one class.
# * With `@timeStamps true`, the archive's form of irregular series, `(time,value)` pairs, no error is
#   raised, and the values come back without their signs.
#
# Seen with the version above, NumPy 2.3, Python 3.11: what is below `EXPECTED`.
#
# Here such files are read by `organics.data.own`, which keeps names and refuses time stamps by name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "aeon==1.6.0"
cat > "$work/program.py" <<'PROGRAM'
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
from aeon.datasets import load_from_ts_file

HEAD = """@problemName Toy
@timeStamps {stamps}
@missing false
@univariate true
@equalLength true
@seriesLength 3
@classLabel true {labels}
@data
"""
named = Path("named.ts")
named.write_text(HEAD.format(stamps="false", labels="Nancy Paris") + "1,2,3:Nancy\n4,5,6:Paris\n")
x, y = load_from_ts_file(str(named))
print("values:", x[:, 0].tolist())
print("labels:", y.tolist())
stamped = Path("stamped.ts")
stamped.write_text(
    HEAD.format(stamps="true", labels="a b")
    + "(0,-1.5),(1,2.5),(2,-3.5):a\n(0,4.5),(1,-5.5),(2,6.5):b\n"
)
try:
    x, y = load_from_ts_file(str(stamped))
    print("with time stamps:", x[:, 0].tolist())
except Exception as error:
    print("with time stamps:", type(error).__name__)
PROGRAM
(cd "$work" && venv/bin/python program.py) > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
values: [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
labels: ['NaNcy', 'paris']
with time stamps: [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]
EXPECTED
echo "as described"
