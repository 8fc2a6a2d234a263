"""A warehouse's Parquet becomes outcomes with hashed units, once, whole or not at all."""

import time
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.cli.outcomes import outcomes
from emberline.errors import InvalidOption
from emberline.exposure import hash_unit, load_key, partition_name
from emberline.route.warehouse import InvalidRows, take_outcomes

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def read(data) -> list[tuple]:
    query = f"SELECT event_id, unit, request_id, metric, value, time_us, part FROM '{data}/outcomes/*/*.parquet'"
    return sorted(duckdb.sql(query).fetchall())


def test_rows_are_hashed_partitioned_and_taken_once(tmp_path):
    path = write(
        tmp_path / "export.parquet",
        event_id=["a", "b"],
        unit=[7, 8],
        metric=["correct", "revenue"],
        value=pa.array([1, 12.5]),
        request_id=["r", None],
        time=[MOMENT, MOMENT],
        note=["not", "read"],
    )
    outcomes(path, data=tmp_path / "data", new=True)
    outcomes(path, data=tmp_path / "data", new=True)
    key = load_key(tmp_path / "data")
    first, second = read(tmp_path / "data")
    at = int(MOMENT.timestamp() * 1e6)
    assert first[:6] == ("a", hash_unit(key, "7"), "r", "correct", 1.0, at)
    assert second[1:6] == (hash_unit(key, "8"), None, "revenue", 12.5, at)
    assert f"part={first[6]}" == partition_name(first[1])
    for written in (tmp_path / "data/outcomes").rglob("*.parquet"):
        assert "unit" in pq.read_schema(written).names


def test_a_file_taken_again_stays_as_it_was_first_received(tmp_path):
    path = write(tmp_path / "export.parquet", event_id=["a"], unit=["u"], metric=["correct"], value=pa.array([1.0]))
    outcomes(path, data=tmp_path / "data", new=True)
    (taken,) = (tmp_path / "data/outcomes").rglob("*.parquet")
    before = taken.read_bytes(), taken.stat().st_mtime_ns
    outcomes(path, data=tmp_path / "data")
    assert [one for one in (tmp_path / "data/outcomes").rglob("*") if one.is_file()] == [taken]
    assert (taken.read_bytes(), taken.stat().st_mtime_ns) == before


@pytest.fixture
def far_from_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize("moment", [MOMENT, MOMENT.replace(tzinfo=None)])
def test_a_timestamp_without_a_time_zone_is_utc_whatever_the_machines_zone(tmp_path, moment):
    columns = {"event_id": ["a"], "unit": ["u"], "metric": ["correct"], "value": [1.0], "time": [moment]}
    take_outcomes(write(tmp_path / "export.parquet", **columns), tmp_path / "data")
    assert read(tmp_path / "data")[0][5] == int(MOMENT.timestamp() * 1e6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"unit": ["u1", ""]}, "row 1: unit"),
        ({"unit": ["u1", "x" * 257]}, "row 1: unit"),
        ({"unit": ["u1", None]}, "row 1: unit"),
        ({"value": [1.0, float("nan")]}, "row 1: value"),
        ({"metric": ["Correct", "correct"]}, "row 0: metric"),
        ({"time": [1.0, 99_999_999_999.0]}, "row 1: time 1e\\+11 is more than a day ahead"),
        ({"time": ["soon", "later"]}, "row 0: time is not what it should be; a Unix time in seconds is required"),
        ({"time": pa.array([1, -(10**14)], pa.timestamp("s"))}, "out of bounds timestamp"),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_taken(tmp_path, change, named):
    good = {"event_id": ["a", "b"], "unit": ["u1", "u2"], "metric": ["correct"] * 2, "value": [1.0, 0.0]}
    with pytest.raises(InvalidOption, match=named) as refused:
        take_outcomes(write(tmp_path / "bad.parquet", **{**good, **change}), tmp_path / "data")
    assert refused.value.hint
    assert not [path for path in (tmp_path / "data/outcomes").rglob("*") if path.is_file()]


def test_nanoseconds_as_pandas_writes_them_are_taken_to_the_microsecond(tmp_path):
    at = int(MOMENT.timestamp() * 1e9) + 1
    columns = {"event_id": ["a", "b"], "unit": ["u", "u"], "metric": ["correct"] * 2, "value": [1.0, 1.0]}
    path = write(tmp_path / "export.parquet", **columns, time=pa.array([at, None], pa.timestamp("ns")))
    take_outcomes(path, tmp_path / "data")
    assert read(tmp_path / "data")[0][5] == at // 1000


def test_a_file_with_a_damaged_page_and_a_folder_are_refused_by_name(tmp_path):
    ids = [f"{number:x}" for number in range(5000)]
    path = write(tmp_path / "export.parquet", event_id=ids, unit=ids, metric=["correct"] * 5000, value=[1.0] * 5000)
    content = bytearray(path.read_bytes())
    content[1000:1040] = bytes(byte ^ 0xFF for byte in content[1000:1040])
    path.write_bytes(content)
    with pytest.raises(InvalidRows, match=r"export.parquet: cannot be read as Parquet: Corrupt"):
        take_outcomes(path, tmp_path / "data")
    with pytest.raises(InvalidRows, match="is a folder"):
        take_outcomes(tmp_path, tmp_path / "data")


def test_a_missing_column_and_a_file_that_is_no_parquet_are_named(tmp_path):
    with pytest.raises(InvalidRows, match="no column 'metric'"):
        take_outcomes(write(tmp_path / "short.parquet", event_id=["a"], unit=["u"], value=[1.0]), tmp_path / "data")
    (tmp_path / "text.parquet").write_text("event_id,unit")
    with pytest.raises(InvalidRows, match="cannot be read as Parquet"):
        take_outcomes(tmp_path / "text.parquet", tmp_path / "data")


def test_a_file_given_twice_is_refused_and_nothing_is_taken(tmp_path):
    path = write(tmp_path / "export.parquet", event_id=["a"], unit=["u"], metric=["correct"], value=[1.0])
    with pytest.raises(InvalidOption, match="each file once"):
        outcomes(path, tmp_path / "." / "export.parquet", data=tmp_path / "data", new=True)
    assert not (tmp_path / "data").exists()
