"""Little files become larger ones and old ones go, and no row is lost or doubled by it, killed or not."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.route.tidy import _DAY_NS, FANOUT, compact, finish, forget, read_name

DAY = 20_000
SCHEMA = pa.schema([("id", pa.string())])


@pytest.fixture
def rows(tmp_path):
    """Files of one row a generation, some a day; returns all rows that are to be read."""

    def make(day: int, number: int) -> list[str]:
        for index in range(number):
            stamp = day * _DAY_NS + index * 60 * 10**9
            folder = tmp_path / f"part={index % 2:02d}"
            folder.mkdir(exist_ok=True)
            path = folder / f"exposures-{stamp:020d}.parquet"
            pq.write_table(pa.Table.from_pylist([{"id": f"{day}-{index}"}], SCHEMA), path)
            os.utime(path, ns=(stamp, stamp))
        return [f"{day}-{index}" for index in range(number)]

    return make


def read(folder) -> list[str]:
    return sorted(row["id"] for path in folder.glob("*/*.parquet") for row in pq.read_table(path).to_pylist())


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*/*.parquet"))


def test_sixteen_files_of_a_day_become_one_again_and_again_and_a_day_that_is_over_one(tmp_path, rows):
    expected = rows(DAY, 2 * (FANOUT * FANOUT + 3))
    while compact(tmp_path, (), (DAY + 1) * _DAY_NS - 1):
        pass
    assert len(names(tmp_path)) == 2 * (1 + 3)
    assert read(tmp_path) == sorted(expected)
    expected += rows(DAY + 1, 6)
    compact(tmp_path, (), (DAY + 2) * _DAY_NS - 1)
    assert len(names(tmp_path)) == 2 + 6
    assert read(tmp_path) == sorted(expected)
    assert compact(tmp_path, (), (DAY + 2) * _DAY_NS - 1) == 0


def test_files_of_an_earlier_version_which_lack_a_column_join_those_that_have_it(tmp_path, rows):
    expected = rows(DAY, 2 * FANOUT)
    for path in sorted(tmp_path.glob("*/*.parquet"))[1::2]:
        written = path.stat().st_mtime_ns
        table = pq.read_table(path)
        pq.write_table(table.append_column("received_us", pa.array([7] * len(table), pa.int64())), path)
        os.utime(path, ns=(written, written))
    assert compact(tmp_path, (), (DAY + 1) * _DAY_NS - 1)
    assert len(names(tmp_path)) == 2
    assert read(tmp_path) == sorted(expected)
    told = [row["received_us"] for path in tmp_path.glob("*/*.parquet") for row in pq.read_table(path).to_pylist()]
    assert (told.count(7), told.count(None)) == (FANOUT, FANOUT)


def test_a_generation_that_may_be_shipped_again_is_left_alone(tmp_path, rows):
    rows(DAY, 2 * FANOUT)
    newest = max(names(tmp_path))
    compact(tmp_path, [newest.removesuffix(".parquet")], (DAY + 1) * _DAY_NS - 1)
    assert newest in names(tmp_path)


def test_a_file_that_was_just_written_may_grow_and_is_left_alone(tmp_path, rows):
    rows(DAY, 2 * FANOUT)
    written = tmp_path / "part=00" / min(names(tmp_path))
    os.utime(written, ns=((DAY + 1) * _DAY_NS - 10**9,) * 2)
    compact(tmp_path, (), (DAY + 1) * _DAY_NS - 1)
    assert written.name in names(tmp_path)
    assert len(names(tmp_path)) == FANOUT + 1


def test_a_kill_between_the_new_file_and_the_old_ones_leaves_no_row_twice(tmp_path, rows):
    expected = rows(DAY, 2 * FANOUT)
    shutil.copytree(tmp_path, tmp_path / "kept")
    compact(tmp_path, (), (DAY + 1) * _DAY_NS - 1)
    for path in (tmp_path / "kept").glob("*/*.parquet"):
        shutil.copy(path, tmp_path / path.parent.name)
    shutil.rmtree(tmp_path / "kept")
    assert len(read(tmp_path)) == 2 * len(expected)
    finish(tmp_path)
    assert read(tmp_path) == sorted(expected)


def test_rows_older_than_retention_go_and_others_stay(tmp_path, rows):
    rows(DAY, 4)
    kept = rows(DAY + 9, 4)
    compact(tmp_path, (), (DAY + 11) * _DAY_NS - 1)
    assert forget(tmp_path, 9.9 * 86_400, (DAY + 11) * _DAY_NS - 1) == 2
    assert read(tmp_path) == kept


def test_a_file_of_another_name_is_not_a_routers(tmp_path):
    assert read_name(tmp_path / "warehouse-00.parquet") is None
