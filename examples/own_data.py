"""Classify sequences of unequal length, given as arrays.

python examples/own_data.py
"""

import jax.random as jr
import numpy as np

import organics

rng = np.random.default_rng(0)
lengths = rng.integers(10, 30, 200)
labels = np.array(["falls", "rises"])[np.arange(200) % 2]
slopes = np.where(labels == "rises", 1.0, -1.0)
x = slopes[:, None, None] * np.linspace(0, 1, 30)[:, None] + rng.normal(size=(200, 30, 2))
x[np.arange(30) >= lengths[:, None]] = np.nan  # whatever comes after the end

layer = organics.nn.ORGaNICs(2, 16, recurrent="identity", dt_tau_max_y=0.5, key=jr.key(0))
run = organics.training.fit(layer, x, labels, lengths=lengths, epochs=12, progress=False)
print(f"test accuracy {run.report.test_accuracy:.0%}", run.report.classes)
print(run.predict(x[:4], lengths[:4]), run.probabilities(x[:4], lengths[:4])[:, 1].round(2))
