"""Permutations as pure functions of seeds: the split, the order of an epoch, PyTorch's `randperm`.

Nothing here depends on earlier draws, so a resumed run repeats an uninterrupted one. All use bit
streams that NumPy guarantees never to change.
"""

import numpy as np
from jaxtyping import Int, Int64

PAPER_SEED = 73
"""Seed of the paper's split and of its permuted sequential task."""


def torch_randperm(n: int, seed: int = PAPER_SEED) -> Int64[np.ndarray, " n"]:
    """The result of `torch.randperm(n)` after `torch.manual_seed(seed)` on a CPU, without PyTorch.

    `n` is from 1 to 2^32 // 20 (beyond, PyTorch draws 64 bits per step), `seed` from 0 to 2^32 - 1.
    Raises `ValueError` outside of these ranges.

    Source: PyTorch draws one 32-bit output of the Mersenne Twister a step and reduces it modulo the
    number of entries left, in a forward Fisher-Yates shuffle.
    """
    _require("n", n, 1, 2**32 // 20)
    _require("seed", seed, 0, 2**32 - 1)
    # Only the legacy seeding of NumPy's Mersenne Twister is that of PyTorch.
    generator = np.random.RandomState(seed)
    draws = np.frombuffer(generator.bytes(4 * (n - 1)), "<u4").astype(np.int64)
    steps = np.arange(n - 1)
    order = list(range(n))
    for i, j in enumerate((steps + draws % (n - steps)).tolist()):
        order[i], order[j] = order[j], order[i]
    return np.array(order, np.int64)


def split(
    n_total: int, n_validation: int, seed: int = PAPER_SEED
) -> tuple[Int64[np.ndarray, " n_train"], Int64[np.ndarray, " n_validation"]]:
    """Indices of the training and of the validation examples among `n_total`.

    The last `n_validation` entries of `torch_randperm(n_total, seed)` validate, the others train.
    `split(60_000, 3_000)` is the paper's split of MNIST. The usual number for each data set is its
    `n_validation`.

    Raises `ValueError` unless `0 <= n_validation < n_total`.
    """
    _require("n_validation", n_validation, 0, n_total - 1)
    order = torch_randperm(n_total, seed)
    n_train = n_total - n_validation
    return order[:n_train], order[n_train:]


def stratified_split(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, " taken"]]:
    """Indices of examples that are kept and of a `share` of them, from above 0 to 1/2, that are
    taken, each in ascending order.

    What is taken of each class differs from its share by at most one and a half examples. Classes
    of one example are kept. For numbers, `labels` are all equal. Raises `ValueError` if nothing is
    taken.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"`share` must be above 0 and at most 1/2, not {share}.")
    order = epoch_order(len(labels), seed, 0)
    order = order[np.argsort(labels[order], kind="stable")]  # by class, at random within each
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = order[counts[numbers[order]] > 1]
    total = round(share * len(order))
    if not total:
        raise ValueError(f"there are too few examples, {len(labels)}, to take {share:g} of them.")
    places = ((np.arange(total) + 0.5) * len(order) / total).astype(np.int64)
    taken = np.sort(order[places])
    return np.setdiff1d(np.arange(len(labels)), taken), taken


def epoch_order(n: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """The order in which epoch number `epoch` of the run with seed `seed` visits `n` examples.

    Sorts n 64-bit outputs of the Philox generator that `numpy.random.SeedSequence` seeds with
    `seed` and the spawn key `epoch`. `seed` from 0 to 2^64 - 1, `epoch` from 0 to 2^32 - 1;
    raises `ValueError` outside of these.
    """
    _require("n", n, 1, 2**32)
    _require("seed", seed, 0, 2**64 - 1)
    _require("epoch", epoch, 0, 2**32 - 1)
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(bits.random_raw(n), kind="stable").astype(np.int64)


def _require(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be from {low} to {high}, not {value}.")
