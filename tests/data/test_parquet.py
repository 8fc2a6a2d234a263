"""Rows from real Parquet files."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.data import Splits, check_splits, load, order_of
from emberline.data.parquet import ParquetRows
from emberline.data.subset import Subset
from emberline.errors import EmberlineError, InvalidSetting, MissingFile
from emberline.recipe import Data, Input, Preprocessing
from emberline.train.batches import Batches, Plan, Prepare

IDS = Preprocessing(inputs=(Input(name="x", shape=()),))


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        ids = np.arange(number * 100, number * 100 + 100)
        x = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ids, 2).astype(np.float32)), 2)
        table = pa.table({"x": x, "words": [[int(i), 1] for i in ids], "image": [b"%d" % i for i in ids], "y": ids % 5})
        pq.write_table(table, tmp_path / f"part-{number}.parquet", row_group_size=30)
    return tmp_path


def rows(folder, window: int = 4) -> ParquetRows:
    return ParquetRows(sorted(folder.glob("*.parquet")), {"x": "x", "words": "words", "image": "image"}, "y", window)


def test_each_row_is_read_with_its_own_values(folder):
    source = rows(folder)
    assert len(source) == 300
    for index in (0, 29, 30, 99, 100, 299, 3):
        instance, label = source[index]
        assert instance["x"].tolist() == [index, index]
        assert (instance["words"], instance["image"], label) == ([index, 1], b"%d" % index, index % 5)
    assert source.labels.tolist() == [index % 5 for index in range(300)]


def test_an_epochs_order_has_each_row_once_and_opens_each_group_once(folder):
    source = rows(folder, window=2)
    opened = []
    read, source._read = source._read, lambda number: opened.append(number) or read(number)
    seen = [source[index][0]["words"][0] for index in order_of(source, 7, 1)]
    assert sorted(seen) == list(range(300))
    assert seen != list(range(300))
    windows = [set(opened[first : first + 60]) for first in range(0, 300, 60)]
    assert all(len(window) <= 4 for window in windows)
    assert len(source._open) == 2
    assert order_of(rows(folder, window=2), 7, 1).tolist() == order_of(source, 7, 1).tolist()


def test_it_is_a_recipes_data_source(folder):
    pattern = str(folder / "part-[01].parquet")
    arguments = {"train": pattern, "validation": str(folder / "part-2.parquet"), "inputs": {"x": "x"}, "label": "y"}
    splits = load(Data(source="emberline.data.parquet:parquet", arguments=arguments), None)
    assert isinstance(splits, Splits)
    assert (len(splits.train), len(splits.validation)) == (200, 100)


def test_lists_of_any_length_are_filled_up_or_cut(folder):
    lists = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9]]
    pq.write_table(pa.table({"words": lists, "y": [0] * 4}), folder / "lists.parquet", row_group_size=3)
    source = ParquetRows([folder / "lists.parquet"], {"words": "words"}, "y", pad_to={"words": 4})
    read = [source[index][0]["words"].tolist() for index in range(4)]
    assert read == [[1, 2, 3, 0], [0] * 4, [4, 0, 0, 0], [5, 6, 7, 8]]
    arguments = {"train": str(folder / "lists.parquet"), "inputs": {"words": "words"}, "label": "y"}
    with pytest.raises(InvalidSetting, match="pad_to is 'ids'; one of words is required"):
        load(Data(source="emberline.data.parquet:parquet", arguments={**arguments, "pad_to": {"ids": 4}}), None)
    with pytest.raises(InvalidSetting, match=r"validation is 1.5; a path, or a fraction between 0 and 1, is required"):
        load(Data(source="emberline.data.parquet:parquet", arguments={**arguments, "validation": 1.5}), None)


def test_what_is_wrong_names_file_row_group_and_column(folder):
    with pytest.raises(
        EmberlineError,
        match=r"part-0.parquet, row group 0 to 3: column 'z' is not there\nhint: it has x, words, image, y",
    ):
        ParquetRows([folder / "part-0.parquet"], {"z": "z"}, "y")
    pq.write_table(pa.table({"x": [1.0, None], "y": [0, 1]}), folder / "holes.parquet", row_group_size=1)
    with pytest.raises(EmberlineError, match=r"holes.parquet, row group 1: column 'x' has 1 empty values"):
        ParquetRows([folder / "holes.parquet"], {"x": "x"}, "y")[1]
    (folder / "text.parquet").write_text("no parquet")
    with pytest.raises(EmberlineError, match=r"text.parquet: cannot be read as Parquet"):
        ParquetRows([folder / "text.parquet"], {"x": "x"}, "y")
    with pytest.raises(
        EmberlineError, match=r"holes.parquet, row group 0 to 1: labels 'x' are of type double.*\nhint: "
    ):
        ParquetRows([folder / "holes.parquet"], {"x": "y"}, "x")
    pq.write_table(pa.table({"x": ["a"], "y": [0], "when": [datetime(2026, 1, 1)]}), folder / "other.parquet")  # noqa: DTZ001 - any type that is no input
    with pytest.raises(
        EmberlineError,
        match=r"other.parquet, row group 0: column 'x' is of type string; double is required, as in .*holes",
    ):
        ParquetRows([folder / "holes.parquet", folder / "other.parquet"], {"x": "x"}, "y")
    with pytest.raises(EmberlineError, match=r"column 'when' is of type timestamp.*, which cannot be an input\nhint: "):
        ParquetRows([folder / "other.parquet"], {"x": "when"}, "y")
    arguments = {"train": "nothing-*.parquet", "validation": "x", "inputs": {}, "label": "y"}
    with pytest.raises(MissingFile, match=r"nothing-\*.parquet: a Parquet file is not there"):
        load(Data(source="emberline.data.parquet:parquet", arguments=arguments), None)


def test_a_label_out_of_range_names_file_row_group_and_row_also_where_rows_are_held_out(tmp_path):
    y = np.zeros(100, int)
    y[57] = 9
    pq.write_table(pa.table({"x": np.arange(100.0), "y": y}), tmp_path / "a.parquet", row_group_size=20)
    arguments = {"train": str(tmp_path / "a.parquet"), "inputs": {"x": "x"}, "label": "y"}
    splits = load(Data(source="emberline.data.parquet:parquet", arguments=arguments), None)
    with pytest.raises(
        InvalidSetting, match=r"label of row \d+ \(.*a.parquet, row group 2, row 17 of it\) is 9; 0 to 2, an index"
    ):
        check_splits(splits, 3, "here")
    batches = Batches(splits.train, Plan(1, 90, 1, 10, 1), IDS, 3, "here")
    row = splits.train.labels.tolist().index(9)
    assert row != 57
    with pytest.raises(
        InvalidSetting, match=rf"here: label of row {row} \(.*a.parquet, row group 2, row 17 of it\) is 9"
    ):
        batches.read(np.array([3, row]))


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("kind", "pad_to"),
    [
        (pa.list_(pa.float32()), {}),
        (pa.list_(pa.float32(), 2), {}),
        (pa.large_list(pa.int64()), {}),
        (pa.list_(pa.float32()), {"x": 3}),
        (pa.list_(pa.int64()), {"x": 3}),
    ],
)
def test_empty_values_in_lists_are_counted_with_their_row_group_and_column(tmp_path, kind, statistics, pad_to):
    lists = pa.array([[1, 2], [3, 4], [5, None], [None, None]], kind)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": lists, "y": [0] * 4}), path, row_group_size=2, write_statistics=statistics)
    found = r"a.parquet, row group 1: column 'x' has 3 empty values in its lists\nhint: put a number in each place"
    if statistics and not pad_to:
        with pytest.raises(EmberlineError, match=found):
            ParquetRows([path], {"x": "x"}, "y")
    else:
        source = ParquetRows([path], {"x": "x"}, "y", pad_to=pad_to)
        assert list(source[1][0]["x"])[:2] == [3, 4]
        with pytest.raises(EmberlineError, match=found):
            source[2]


def test_empty_values_are_found_at_the_start_in_inputs_and_labels_and_empty_lists_are_none(tmp_path):
    path = tmp_path / "a.parquet"
    table = {"x": [1.0, 2.0, None], "y": [0, None, 1], "words": [[1], [], [2, 3]], "z": [0, 1, 2]}
    pq.write_table(pa.table(table), path, row_group_size=2)
    with pytest.raises(EmberlineError, match=r"row group 1: column 'x' has 1 empty values\nhint: fill them"):
        ParquetRows([path], {"x": "x"}, "z")
    with pytest.raises(EmberlineError, match=r"row group 0: column 'y' has 1 empty values\nhint: fill them"):
        ParquetRows([path], {"words": "words"}, "y")
    assert ParquetRows([path], {"words": "words"}, "z")[1][0]["words"] == []


def test_a_flipped_bit_is_found_where_pages_have_checksums(tmp_path):
    path, x = tmp_path / "a.parquet", np.arange(1000.0)
    plain = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"x": x, "y": [0] * 1000}), path, write_page_checksum=True, **plain)
    content = bytearray(path.read_bytes())
    content[content.index(x[500:502].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        EmberlineError, match=r"row group 0: column 'x', 'y' cannot be read: .*CRC.*\nhint: the file is"
    ):
        ParquetRows([path], {"x": "x"}, "y")[0]


@pytest.mark.parametrize("size", [0, 6, 300, -5])
def test_a_file_that_is_not_whole_is_named_with_a_remedy(folder, size):
    path = folder / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        EmberlineError, match=r"part-0.parquet: cannot be read as Parquet: .*\nhint: the file is not whole"
    ):
        ParquetRows([path], {"x": "x"}, "y")


def test_a_wrong_value_names_column_and_input_where_they_differ(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpeg": [1.0, -1.0], "x": [1.0, -1.0], "y": [0, 0]}), path)
    for name, column, told in (("image", "jpeg", r"column jpeg \(input image\): value -1"), ("x", "x", "x: value -1")):
        rows = Subset(ParquetRows([path], {name: column}, "y"), np.array([1, 0]))
        least = Preprocessing(inputs=(Input(name=name, shape=(), minimum=0),))
        with pytest.raises(EmberlineError, match=rf"row 0 \(.*row 1 of it\): {told} is below the minimum 0\nhint: "):
            Prepare(least, "here")(rows, np.array([1, 0]))
