"""How far proofs get that there are no other steady states, with 7 and 8 neurons.

    python -m benchmarks.many_boxes [--quick] [--seconds N] [--out FILE]

The circuits are those of `benchmarks.steady_states`: the largest singular value of `W_r` is 1, 2
and 3 in turn. A proof may examine up to a billion boxes. One process without threads; `--seconds`
are those in which it has the processor, ten minutes by default: 40 % for 7 neurons, the rest for 8.
A circuit that is under way at the end of its share is finished. Not among the benchmarks that
`python -m benchmarks` runs; the result that is kept is `results/many_boxes.json`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._agenda import LEAST, Agenda
from benchmarks._common import command, command_line, conclude, spread
from benchmarks.steady_states import random_circuit
from organics.enumeration import native
from organics.enumeration.enclosure import enclose_all
from organics.enumeration.reduced import Reduced

SHARES = {7: 0.4, 8: 0.6}
MOST_BOXES = 1_000_000_000
SECONDS = 600.0
MOST_CIRCUITS = 20


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Prove as many circuits as there is time for.

    Arguments
        out: file for the result.
        quick: 4 and 5 neurons, for a second each.
        seconds: of the processor, in all.
    """
    shares = {4: 0.5, 5: 0.5} if quick else SHARES
    budget = (2.0 if quick else SECONDS) if seconds is None else seconds
    agenda = Agenda("many_boxes", 5, quick=quick)
    with jax.enable_x64(True), threadpool_limits(1), np.errstate(all="ignore"):
        found = {f"n = {n}": _proofs(n, share * budget) for n, share in shares.items()}
    agenda.measured = True
    document = {"kernel": native.available(), "most_boxes": MOST_BOXES, "proof": found}
    return conclude(agenda, command("many_boxes", quick=quick, seconds=seconds), document, out)


def _proofs(n: int, budget: float) -> dict[str, Any]:
    seconds, found = [], []
    for k in range(MOST_CIRCUITS):
        circuit, z = random_circuit(k, n)
        begin = time.process_time()
        one = enclose_all(circuit, z, Reduced.of(circuit, z), MOST_BOXES)
        seconds.append(time.process_time() - begin)
        found.append(one)
        text = f"many_boxes: n = {n}, circuit {k}: {one.boxes:,} boxes, {one.outcome}"
        print(text, file=sys.stderr, flush=True)
        if sum(seconds) >= budget:
            break
    boxes = [one.boxes for one in found]
    return {
        "circuits": len(found),
        "complete": sum(one.outcome == "all, proved" for one in found),
        "seconds": spread(seconds) if len(seconds) >= LEAST else [round(s, 2) for s in seconds],
        "boxes_median": int(np.median(boxes)),
        "boxes_most": max(boxes),
        "states": [len(one.v) for one in found],
        "outcomes": [one.outcome for one in found],
    }


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
