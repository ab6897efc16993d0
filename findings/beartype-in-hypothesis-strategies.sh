#!/usr/bin/env bash
# beartype 0.23.1 in a strategy of Hypothesis 6.170.17. beartype checks one item of a sequence, which it
# chooses with Python's `random`. Hypothesis watches that module while a strategy draws, and says "Do
# not use the `random` module inside strategies" of a strategy that does not: one that only calls a
# function with an argument such as `tuple[int, ...]` or `list[int]`, with at least one item, checked
# by beartype. It is a deprecation now, and an error in the code where warnings are errors.
#
# Seen with the versions above, Python 3.11: what is below `EXPECTED`.
#
# Met with jaxtyping's import hook, which has a whole package checked by beartype. Remedies: annotate
# what is called inside strategies as `tuple`; or draw the numbers in the strategy, and call the
# function in the test.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  "beartype==0.23.1" "hypothesis==6.170.17"
cat > "$work/program.py" <<'PROGRAM'
import warnings

from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st


@beartype
def size_of_sequence(shape: tuple[int, ...]) -> int:
    return len(shape)


@beartype
def size_of_tuple(shape: tuple) -> int:
    return len(shape)


def said(size):
    @st.composite
    def sizes(draw):
        return size((draw(st.integers(1, 3)), 2))

    @given(sizes())
    def test(n):
        assert n == 2

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        test()
    return sorted({str(warning.message).split(";")[0] for warning in found})


print("tuple[int, ...]:", said(size_of_sequence))
print("tuple:", said(size_of_tuple))
PROGRAM
(cd "$work" && venv/bin/python program.py) > "$work/seen"
cat "$work/seen"
diff "$work/seen" - <<'EXPECTED'
tuple[int, ...]: ['Do not use the `random` module inside strategies']
tuple: []
EXPECTED
echo "as described"
