"""Rows from real Parquet through the trainer's batches: once each, in one order, by however many workers."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emberline.data import order_of, parquet
from emberline.data.parquet import ParquetRows
from emberline.errors import EmberlineError
from emberline.recipe import Input, Preprocessing
from emberline.train.batches import Batches, Plan
from emberline.train.tree import shards_of

IDS = Preprocessing(inputs=(Input(name="x", shape=()),))
IMAGES = Preprocessing(inputs=(Input(name="x", kind="image"),))


class Worker:
    """One rank's reading, as `VirtualShards` does it."""

    def __init__(self, rows, plan, rank, size, *, threads=2, preprocessing=IDS):
        self.batches = Batches(rows, plan, preprocessing, 0, "here", threads=threads, ahead=3)
        self._shards, self._plan = range(*shards_of(rank, size, plan.num_shards)), plan
        self.batches.follow(lambda step: [plan.shard_bounds(step, shard) for shard in self._shards])

    def read(self, step):
        for shard in self._shards:
            bounds = self._plan.shard_bounds(step, shard)
            if bounds[0] < bounds[1]:
                yield from self.batches.part(step, bounds)[0][0].flatten().long().tolist()


def write(folder, sizes, group_size=7):
    first = 0
    for number, size in enumerate(sizes):
        ids = np.arange(first, first + size)
        table = pa.table({"x": ids.astype(np.float32), "y": ids % 3})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=group_size)
        first += size
    return sorted(folder.glob("part-*.parquet"))


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    window=st.integers(1, 5),
    shards=st.integers(4, 6),
    micro=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    every=st.integers(1, 4),
)
def test_each_row_is_read_once_an_epoch_whatever_worlds_come_and_go(  # noqa: PLR0917 - hypothesis names them
    tmp_path_factory, sizes, window, shards, micro, seed, worlds, every
):
    paths = write(tmp_path_factory.mktemp("parts"), sizes)
    plan = Plan(seed, sum(sizes), 2, shards * micro, shards)
    read = []
    for step in range(plan.total_steps):
        if step % every == 0:  # a new world: all workers start from nothing but the step
            size = worlds[step // every % len(worlds)]
            world = [Worker(ParquetRows(paths, {"x": "x"}, "y", window), plan, rank, size) for rank in range(size)]
        for worker in world:
            read += worker.read(step)
    expected = [
        index for epoch in range(2) for index in order_of(ParquetRows(paths, {"x": "x"}, "y", window), seed, epoch)
    ]
    assert read == expected
    assert sorted(read[: plan.num_rows]) == list(range(plan.num_rows))


def note_opened(monkeypatch):
    """The row groups that are read from now on."""
    opened, read = [], parquet._read_columns
    monkeypatch.setattr(
        parquet, "_read_columns", lambda group, columns: (opened.append(group), read(group, columns))[1]
    )
    return opened


def test_a_worker_that_starts_in_mid_epoch_reads_no_row_group_before_its_place(tmp_path, monkeypatch):
    paths = write(tmp_path, [100, 100], group_size=10)
    opened = []
    read = ParquetRows._read
    monkeypatch.setattr(
        ParquetRows,
        "_read",
        lambda self, number: (number in self._open or opened.append(number), read(self, number))[1],
    )
    plan = Plan(3, 200, 1, 10, 2)
    rows = ParquetRows(paths, {"x": "x"}, "y", window=2)
    assert len(list(Worker(rows, plan, 0, 1, threads=0).read(15))) == 10
    assert len(opened) <= 2  # of 20: one window
    opened.clear()
    whole = Worker(rows, plan, 0, 1, threads=0)
    for step in range(plan.total_steps):
        list(whole.read(step))
    assert len(opened) <= 20  # each once in an epoch


@pytest.mark.parametrize(("threads", "micro"), [(2, 4), (4, 4), (8, 4), (2, 40), (8, 40)])
def test_threads_that_read_ahead_open_each_row_group_once_an_epoch(tmp_path, monkeypatch, threads, micro):
    rows = ParquetRows(write(tmp_path, [3200], group_size=100), {"x": "x"}, "y", window=4)
    opened = note_opened(monkeypatch)
    plan = Plan(1, 3200, 1, 4 * micro, 4)
    worker = Worker(rows, plan, 0, 1, threads=threads)
    for step in range(plan.total_steps):
        list(worker.read(step))
    assert sorted(group.index for group in opened) == list(range(32))


def image_bytes(color, form="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 0, 0)).save(file, form)
    return file.getvalue()


def test_images_are_decoded_ahead_and_a_corrupt_one_is_named_by_file_and_row(tmp_path):
    images = [image_bytes(color, form) for color in range(0, 250, 5) for form in ("JPEG", "PNG")]
    images[57] = images[57][:40]
    pq.write_table(pa.table({"x": images, "y": [0] * 100}), tmp_path / "i.parquet", row_group_size=20)
    rows = ParquetRows([tmp_path / "i.parquet"], {"x": "x"}, "y")
    plan = Plan(1, 100, 1, 10, 2)
    place = rf"here, row 57 \({tmp_path}/i.parquet, row group 2, row 17 of it\): x: no image that can be decoded"
    for threads in (0, 2):
        batches = Worker(rows, plan, 0, 1, threads=threads, preprocessing=IMAGES).batches
        found = 0
        for step in range(10):
            for shard in range(2):
                bounds = plan.shard_bounds(step, shard)
                if 57 in rows.order(1, 0)[step * 10 + bounds[0] : step * 10 + bounds[1]]:
                    with pytest.raises(EmberlineError, match=place):
                        batches.part(step, bounds)
                else:
                    found += len(batches.part(step, bounds)[1])
        assert found == 95


def test_rows_held_out_of_training_shards_are_no_training_rows_and_the_test_file_stays_closed(tmp_path, monkeypatch):
    write(tmp_path, [50, 50])
    opened = note_opened(monkeypatch)
    arguments = {"train": str(tmp_path / "part-0.parquet"), "inputs": {"x": "x"}, "label": "y"}
    splits = parquet.parquet(**arguments, validation=0.2, test=str(tmp_path / "part-1.parquet"))
    ids = [{int(rows[index][0]["x"]) for index in range(len(rows))} for rows in (splits.train, splits.validation)]
    assert (len(ids[0]), len(ids[1])) == (40, 10)
    assert ids[0] | ids[1] == set(range(50))
    assert {str(group.path) for group in opened} == {arguments["train"]}
