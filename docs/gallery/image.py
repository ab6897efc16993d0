"""
Local normalization of an image
===============================

`NormalizationConv2d` divides each pixel's drive by the activity around it. The response to a digit
hardly depends on the contrast of the image.
"""

import jax
import matplotlib.pyplot as plt

import organics

digits = organics.data.load("digits")
image = digits.pixels(digits.test_images)[:1]  # one channel
layer = organics.nn.NormalizationConv2d(1, 4, 3, key=jax.random.key(0))
figure, axes = plt.subplots(2, 5, figsize=(8, 3.4))
for row, contrast in zip(axes, (1.0, 0.1), strict=True):
    row[0].imshow(contrast * image[0], cmap="gray", vmin=0, vmax=1)
    row[0].set_ylabel(f"contrast {contrast:.0%}")
    for ax, channel in zip(row[1:], layer(contrast * image), strict=True):
        ax.imshow(channel, vmin=0)
    for ax in row:
        ax.set(xticks=[], yticks=[])
