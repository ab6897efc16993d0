"""
The paper, run again
====================

For whom has the paper at hand: each figure, table and theorem is a target of `organics reproduce`,
and its verdict is computed. Here two of them run from Python; from a shell the same is `organics
reproduce fig1 table5`.
"""

# %%
# A target answers with its finding, its checks and a picture. Its result is a JSON file that has
# the numbers, the command, the versions and the machine beside.
import json
import tempfile
from pathlib import Path

import jax

from organics.studies.catalog import named
from organics.studies.harness.runner import reproduce

jax.config.update("jax_enable_x64", True)
folder = Path(tempfile.mkdtemp())
for result in reproduce(named(("fig1", "table5")), folder):
    print(f"{result.target.title}: {result.document['verdict']}")
    print(f"  claim: {result.target.claim}")
    print(f"  here:  {result.document['here']}")

# %%
# The checks behind a verdict:
document = json.loads((folder / "fig1.json").read_text())
for check in document["checks"]:
    print(f"{'yes' if check['holds'] else 'no '}  {check['what']}: {check['here']}")

# %%
# And the picture: the phase portraits of Figure 1.
import matplotlib.pyplot as plt

figure = plt.figure(figsize=(8, 5.4))
axes = figure.add_axes((0, 0, 1, 1))
axes.imshow(plt.imread(folder / "fig1.png"))
axes.axis("off")
