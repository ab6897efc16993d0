"""Circuits as a recurrent layer of PyTorch: train on digits read row by row, then certify one."""

import torch

import organics
from organics.torch import ORGaNICs

digits = organics.data.load("digits")
x = torch.tensor(digits.pixels(digits.train_images), dtype=torch.float32)  # (1500, 8, 8)
labels = torch.tensor(digits.train_labels, dtype=torch.long)


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        rates = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.2, "dt_tau_max_gates": 1.0}  # for 8 steps
        self.layer = ORGaNICs(8, 32, batch_first=True, recurrent="identity", **rates)
        self.readout = torch.nn.Linear(32, 10)

    def forward(self, x):
        y, state = self.layer(x)  # as of torch.nn.LSTM: every output, and the final state
        return self.readout(y[:, -1])


torch.manual_seed(0)
model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
for _ in range(100):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
circuits = model.layer.to_jax()  # the same layer as `organics.nn.ORGaNICs`
_, state = circuits(x[0].numpy())
circuit, z = organics.nn.circuit_at(circuits, x[0, -1].numpy(), state)
point = organics.steady_state(circuit, z)
print(f"loss {loss.item():.4f}; stable at the end of x[0]: {organics.certify(point).holds}")
