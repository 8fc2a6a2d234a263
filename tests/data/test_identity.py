"""What data are known by: the same rows have one digest, others have another."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.data import ArrayRows, Subset, identity, rows_from_arrays
from emberline.data.identity import identity_of
from emberline.data.parquet import ParquetRows
from emberline.data.shapes import boxes, masks
from emberline.errors import EmberlineError


def arrays(**changed):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    return ArrayRows(**{"inputs": {"x": x}, "labels": np.array([0, 1, 0, 1]), **changed})


def write(path, values, labels):
    pq.write_table(pa.table({"x": values, "y": labels}), path, row_group_size=2)
    return path


def test_arrays_are_known_by_their_bytes():
    first = arrays().digest()
    assert (first, first["rows"]) == (arrays().digest(), 4)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    other = x.copy()
    other[3, 2] += 1e-6
    changed = (
        {"inputs": {"x": other}}, {"inputs": {"y": x}}, {"inputs": {"x": x.reshape(4, 3, 1)}},
        {"labels": np.array([0, 1, 1, 1])}, {"groups": np.zeros(4, int)},
    )  # fmt: skip
    assert len({first["xxh3"], *(arrays(**one).digest()["xxh3"] for one in changed)}) == 1 + len(changed)


def test_strided_arrays_and_texts_are_known_too():
    strided = rows_from_arrays("x", np.arange(24).reshape(4, 6)[:, ::2], [0, 1, 0, 1])
    packed = rows_from_arrays("x", np.arange(24).reshape(4, 6)[:, ::2].copy(), [0, 1, 0, 1])
    assert strided.digest() == packed.digest()
    texts = [rows_from_arrays("x", np.array(words, object), [0, 1]).digest() for words in (["a", "b"], ["a", "c"])]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("whole_bytes", [identity._WHOLE_BYTES, 0])
def test_parquet_files_are_known_by_what_is_in_them(tmp_path, monkeypatch, whole_bytes):
    monkeypatch.setattr(identity, "_WHOLE_BYTES", whole_bytes)
    folder = [tmp_path / name for name in ("one", "copy", "other")]
    for place, last in zip(folder, (5.0, 5.0, 6.0), strict=True):
        place.mkdir()
        write(place / "a.parquet", [1.0, 2.0, 3.0], [0, 1, 0])
        write(place / "b.parquet", [4.0, last], [1, 1])
    one, copy, other = (
        ParquetRows([place / "a.parquet", place / "b.parquet"], {"x": "x"}, "y").digest() for place in folder
    )
    assert one == copy
    assert one["xxh3"] != other["xxh3"]
    assert (one["of"], one["rows"], one["files"]) == ("files" if whole_bytes else "footers", 5, 2)
    assert one["size_bytes"] == sum((folder[0] / f"{name}.parquet").stat().st_size for name in "ab")


def test_some_of_the_rows_are_known_by_which_they_are():
    some = [Subset(arrays(), np.array(indices)).digest() for indices in ([0, 1], [0, 1], [0, 2])]
    assert some[0] == some[1]
    assert some[0]["xxh3"] not in {some[2]["xxh3"], arrays().digest()["xxh3"]}
    assert some[0]["rows"] == 2


def test_rows_that_tell_no_digest_have_none():
    class Bare:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {}, 0

    assert identity_of(Bare()) is None
    assert identity_of(Subset(Bare(), np.array([0]))) is None
    Bare.digest = lambda _self: 17
    with pytest.raises(EmberlineError, match="digest\\(\\) gives int"):
        identity_of(Bare())


def test_made_up_pictures_are_the_same_each_time_and_of_another_seed_others():
    first, again, other = (identity_of(boxes(seed=seed, train=5).train)["xxh3"] for seed in (1, 1, 2))
    assert first == again != other
    labelled = masks(seed=1, train=5).train
    picture, mask = labelled[3]
    assert picture == boxes(seed=1, train=5).train[3][0]
    assert set(np.unique(mask)) == {0, *(boxes(seed=1, train=5).train[3][1][:, 0].astype(int) + 1)}
