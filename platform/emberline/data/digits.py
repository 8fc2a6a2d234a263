"""The 1,797 handwritten digits of 8 by 8 pixels that ship with scikit-learn: data for a demo without a download.

Source: UCI, Optical Recognition of Handwritten Digits (test part), by way of `sklearn.datasets.load_digits`.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emberline.data.rows import Splits, rows_from_arrays
from emberline.errors import MissingFile, MissingTool

_FRACTIONS = (0.7, 0.15)  # train, validation; the rest is the test split


def digits(seed: int = 0, copies: int = 1) -> Splits:
    """The digits, split by class: 70 % train, 15 % validation, 15 % test.

    Args:
        seed: of the split; another one moves rows between the splits.
        copies: repeats the training rows, for a longer run.
    """
    images, labels = read_digits()
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


def read_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (rows, 8, 8) of 0 to 16, and labels, in scikit-learn's order.

    Its file is read without importing it: that takes seconds, in each worker and again after each restart.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingTool("scikit-learn", "the digits ship with it", hint="pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise MissingFile(path, "scikit-learn's file of digits", hint="install scikit-learn again")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
