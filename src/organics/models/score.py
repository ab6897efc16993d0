"""Cross-entropy and accuracy of class scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CLASSES = 10


def score(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    valid: Bool[Array, " batch"] | bool = True,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy and accuracy; only `valid` examples can count as right."""
    scores = jax.nn.log_softmax(logits)
    cross_entropy = -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))
    correct = (jnp.argmax(logits, axis=1).astype(labels.dtype) == labels) & valid
    return cross_entropy, jnp.mean(correct.astype(logits.dtype))
