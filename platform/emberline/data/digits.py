"""The 1,797 handwritten digits of 8 by 8 pixels that ship with scikit-learn: data for a demo without a download.

Source: UCI, Optical Recognition of Handwritten Digits (test part), by way of `sklearn.datasets.load_digits`.
"""

import numpy as np

from emberline.data.rows import Splits, rows_from_arrays

_FRACTIONS = (0.7, 0.15)  # train, validation; the rest is the test split


def digits(seed: int = 0, copies: int = 1) -> Splits:
    """The digits, split by class: 70 % train, 15 % validation, 15 % test.

    Args:
        seed: of the split; another one moves rows between the splits.
        copies: repeats the training rows, for a longer run.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype(np.float32), bunch.target.astype(np.int64)
    random = np.random.Generator(np.random.Philox(seed))
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        first = round(_FRACTIONS[0] * len(rows))
        second = first + round(_FRACTIONS[1] * len(rows))
        for part, piece in zip(parts, np.split(rows, [first, second]), strict=True):
            part.extend(int(row) for row in piece)
    train, validation, test = (rows_from_arrays("pixels", images[sorted(part)], labels[sorted(part)]) for part in parts)
    return Splits(train.take(list(range(len(train))) * copies), validation, test)
