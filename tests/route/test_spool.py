"""Logs become Parquet exactly once, whatever was done before a crash."""

import shutil

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.errors import InvalidSetting
from emberline.exposure import partition_name
from emberline.route.spool import Shipper, Spool

SCHEMA = pa.schema([("unit", pa.string()), ("id", pa.string())])


def parse(line: bytes) -> dict:
    row = orjson.loads(line) if line.startswith(b"{") else None
    if row is None:
        raise InvalidSetting("line", "line", line, "JSON")
    return row


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool", "exposures")


@pytest.fixture
def new_shipper(tmp_path, spool, complaints):
    return lambda **options: Shipper(spool, tmp_path / "out", SCHEMA, parse, complain=complaints.append, **options)


def line(number: int) -> bytes:
    return orjson.dumps(
        {"unit": f"{number * 2654435761 % 2**32:08x}", "id": str(number)}, option=orjson.OPT_APPEND_NEWLINE
    )


def append(path, numbers) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(line, numbers)))


def shipped(tmp_path) -> list[int]:
    files = sorted((tmp_path / "out").glob("*/*.parquet"))
    rows = [(path.parent.name, row) for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    assert all(partition_name(row["unit"]) == partition for partition, row in rows)
    return sorted(int(row["id"]) for _, row in rows)


def test_a_growing_log_is_shipped_as_it_grows_and_deleted_when_closed(tmp_path, spool, new_shipper):
    shipper, log = new_shipper(), spool.begin()
    for start in range(0, 100, 20):
        append(log, range(start, start + 20))
        assert shipper.ship(lambda _: True) == 20
        assert shipped(tmp_path) == list(range(start + 20))
    assert shipper.ship(lambda _: True) == 0
    assert shipper.ship(lambda _: False) == 0
    assert not log.exists()
    assert shipped(tmp_path) == list(range(100))


def test_a_crash_anywhere_is_made_good_by_shipping_again(tmp_path, spool, new_shipper):
    log = spool.begin()
    append(log, range(50))
    new_shipper().ship(lambda _: True)
    append(log, range(50, 80))
    new_shipper().ship(lambda _: True)  # the first one was killed
    assert shipped(tmp_path) == list(range(80))

    kept = tmp_path / "kept"
    shutil.copy(log, kept)
    new_shipper().ship(lambda _: False)
    shutil.copy(kept, log)  # killed between the last file and the deletion of the log
    shutil.rmtree(next((tmp_path / "out").iterdir()))  # and, at that, between two partitions
    new_shipper().ship(lambda _: False)
    assert shipped(tmp_path) == list(range(80))
    assert not log.exists()


def test_an_unfinished_line_waits_and_is_left_out_only_when_its_writer_is_gone(
    tmp_path, spool, new_shipper, complaints
):
    shipper, log = new_shipper(), spool.begin()
    with log.open("ab") as file:
        file.write(line(1) + line(2)[:10])
    assert shipper.ship(lambda _: True) == 1
    with log.open("ab") as file:
        file.write(line(2)[10:] + line(3)[:5])
    assert shipper.ship(lambda _: True) == 1
    assert not complaints
    shipper.ship(lambda _: False)
    assert shipped(tmp_path) == [1, 2]
    assert "unfinished line" in complaints[0]


def test_a_line_that_cannot_be_read_is_named_and_its_neighbours_are_kept(tmp_path, spool, new_shipper, complaints):
    log = spool.begin()
    log.write_bytes(line(1) + b"rubbish\n" + line(2))
    new_shipper().ship(lambda _: False)
    assert shipped(tmp_path) == [1, 2]
    assert log.name in complaints[0]
    assert "rubbish" in complaints[0]


def test_an_id_counts_once_a_generation_also_after_a_crash(tmp_path, spool, new_shipper):
    log = spool.begin()
    append(log, [1, 2, 1])
    new_shipper(unique=("id",)).ship(lambda _: True)
    append(log, [2, 3])
    new_shipper(unique=("id",)).ship(lambda _: False)
    assert shipped(tmp_path) == [1, 2, 3]


def test_a_full_disk_loses_nothing(tmp_path, spool, new_shipper, monkeypatch):
    shipper, log = new_shipper(), spool.begin()
    append(log, range(40))
    with monkeypatch.context() as full:

        def write(*_: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr("emberline.storage.write_bytes", write)
        with pytest.raises(OSError, match="No space"):
            shipper.ship(lambda _: False)
        with pytest.raises(OSError, match="No space"):
            shipper.ship(lambda _: False)
    assert log.exists()
    shipper.ship(lambda _: False)
    assert shipped(tmp_path) == list(range(40))
    assert not log.exists()
