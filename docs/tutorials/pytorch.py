"""
A recurrent layer for PyTorch
=============================

For whom a layer is a `torch.nn.Module`: `organics.torch.ORGaNICs` takes the place of
`torch.nn.LSTM`. It trains without clipping, and at every moment it is a circuit that can be taken
out and certified.

.. only:: without_torch

    PyTorch was not installed where this page was made, so the program was not run. The tests run
    it, and check what is said here about its results.
"""

# %%
# In place of an LSTM
# -------------------
# The digits that come with scikit-learn, a row of eight pixels at each step. Step sizes are ratios
# to the time constants; for 8 steps they are larger than the paper's, which are for 784.
import torch
from torch import nn

import organics
from organics.torch import ORGaNICs

digits = organics.data.load("digits")
x, test = (
    torch.tensor(digits.pixels(part), dtype=torch.float32)
    for part in (digits.train_images, digits.test_images)
)  # (images, 8 steps, 8 pixels)
labels, test_labels = (
    torch.tensor(part, dtype=torch.long) for part in (digits.train_labels, digits.test_labels)
)


class Classifier(nn.Module):
    """A recurrent layer, and a linear readout of its last output."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.readout = nn.Linear(32, 10)

    def forward(self, x, **options):
        y, state = self.layer(x, **options)  # every output, and the final state
        return self.readout(y[:, -1])


rates = {"dt_tau_max_y": 1.0, "dt_tau_max_a": 1.0, "dt_tau_max_gates": 1.0}
torch.manual_seed(0)
circuits = Classifier(ORGaNICs(8, 32, batch_first=True, recurrent="identity", **rates))
lstm = Classifier(nn.LSTM(8, 32, batch_first=True))


def train(model, steps=60):
    """Adam on all images at once, without clipping; the loss after each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


losses = {"circuits": train(circuits), "LSTM": train(lstm)}

# %%
# Both learn it: more than nine of ten test images are right. On a CPU the layer runs in a native
# kernel, forward and backward, which needs no JAX.
for name, model in (("circuits", circuits), ("LSTM", lstm)):
    weights = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        right = (model(test).argmax(1) == test_labels).float().mean()
    print(f"{name}: {weights} weights, {right:.1%} right, loss {losses[name][-1]:.4f}")

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3))
for name, values in losses.items():
    axes.semilogy(values, label=name)
axes.set(xlabel="step", ylabel="loss")
axes.legend()

# %%
# A state to go on with
# ---------------------
# The state has four parts: potentials `y` and `a`, gains `b0` and `b`, each (layers, batch, n).
# Given back as `h0`, it continues: two halves are the whole.
layer = circuits.layer
with torch.no_grad():
    whole, end = layer(test)
    _, middle = layer(test[:, :4])
    second, _ = layer(test[:, 4:], middle)
print(end.y.shape, torch.allclose(second, whole[:, 4:], atol=1e-5))

# %%
# Sequences of unequal length
# ---------------------------
# `lengths`, or a `PackedSequence`: whatever the padding holds, even NaN, changes neither values nor
# gradients.
lengths = torch.randint(3, 9, (len(test),))
padded = torch.where(torch.arange(8)[:, None] < lengths[:, None, None], test, torch.nan)
_, end = layer(padded, lengths=lengths)
alone, _ = layer(test[0, : lengths[0]])
print(bool(end.y.isfinite().all()), torch.allclose(end.y[0, 0], alone[-1], atol=1e-5))

# %%
# The circuit in it
# -----------------
# At any moment of a sequence the layer has a circuit, and a drive. With identity recurrence, its
# steady state is stable by the paper's theorem, whatever was learned. The questions are asked in
# JAX, where the same layer has the same weights.
image = test[0].numpy()
same = layer.to_jax()
_, state = same(image)
circuit, z = organics.nn.circuit_at(same, image[-1], state)
certificate = organics.certify(organics.steady_state(circuit, z))
certificate

# %%
# Keeping it
# ----------
# A file has the weights and the options; it is read by PyTorch and by JAX, and holds no code.
import tempfile
from pathlib import Path

file = Path(tempfile.mkdtemp()) / "layer.safetensors"
layer.save(file)
again = ORGaNICs.load(file, batch_first=True)
print(torch.equal(again(test)[0], layer(test)[0]))
