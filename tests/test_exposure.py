"""Rows of exposures: parsed from the router's log, hashed, partitioned."""

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberline.errors import CorruptPaper
from emberline.exposure import (
    EXPOSURES,
    NUM_PARTITIONS,
    UnreadableLine,
    hash_unit,
    load_key,
    parse_line,
    partition_name,
    partition_of,
)

KEY = b"k" * 32
LINE = {
    "time": "1795380771.739737",
    "experiment": "digits-int8",
    "config_version": "digits-int8-0-ff23b227",
    "unit": "üser-1",
    "request_id": "a95d13f7-10bd-4148-873b-c27c86ff4eeb",
    "model": "digits",
    "variant": "int8",
    "version": "1.1",
    "status": 200,
    "flags": "-",
    "latency_us": 1327,
    "duration_ms": 1,
    "label": "3",
    "score": 0.5,
    "shadow": False,
}


def parse(**changes: object) -> dict:
    return parse_line(orjson.dumps({**LINE, **changes}), KEY)


def test_a_line_becomes_a_row_of_the_schema_with_the_unit_hashed():
    row = parse()
    assert row == {
        "time_us": 1_795_380_771_739_737,
        "experiment": "digits-int8",
        "config_version": "digits-int8-0-ff23b227",
        "unit": hashlib.blake2b("üser-1".encode(), key=KEY, digest_size=16).hexdigest(),
        "request_id": "a95d13f7-10bd-4148-873b-c27c86ff4eeb",
        "model": "digits",
        "variant": "int8",
        "served_variant": "int8",
        "version": "1.1",
        "shadow": False,
        "status": 200,
        "latency_ms": 1.327,
        "label": "3",
        "score": 0.5,
    }
    assert pa.Table.from_pylist([row], schema=EXPOSURES).num_rows == 1


def test_the_body_of_an_error_has_no_label():
    assert (parse(status=503)["label"], parse(status=503)["score"]) == (None, None)


def test_a_client_that_went_away_has_status_0_and_the_whole_duration():
    row = parse(status=0, latency_us=None, duration_ms=12, label=None, score=None)
    assert (row["status"], row["latency_ms"], row["label"]) == (0, 12.0, None)


@pytest.mark.parametrize(("label", "kept"), [(3, "3"), ("cat", "cat"), (None, None)])
def test_labels_are_text(label, kept):
    assert parse(label=label)["label"] == kept


def test_a_score_that_is_no_number_is_left_out():
    assert parse(score="high")["score"] is None


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"null", orjson.dumps({**LINE, "unit": None}), orjson.dumps({**LINE, "variant": None})]
    + [orjson.dumps({key: value for key, value in LINE.items() if key != gone}) for gone in ("time", "status", "unit")],
)
def test_a_line_the_router_did_not_write_is_refused(line):
    with pytest.raises(UnreadableLine):
        parse_line(line, KEY)


@given(st.binary(max_size=300))
def test_no_line_whatever_ends_in_another_error(line):
    with pytest.raises(UnreadableLine):
        parse_line(line, KEY)


def test_a_unit_is_not_to_be_found_without_the_key_and_keeps_its_partition():
    assert hash_unit(KEY, "u") != hash_unit(b"other", "u")
    hashed = [hash_unit(KEY, str(number)) for number in range(4000)]
    assert {partition_of(unit) for unit in hashed} == set(range(NUM_PARTITIONS))
    assert partition_name(hashed[0]) == f"part={partition_of(hashed[0]):02d}"


def test_processes_that_start_together_share_one_key(tmp_path):
    with ThreadPoolExecutor(16) as many:
        keys = set(many.map(lambda _: load_key(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["unit.key"]


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    key = load_key(tmp_path)
    assert len(key) == 32
    assert load_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "unit.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("content", "got"), [(b"", "0 bytes long"), (b"k" * 31, "31 bytes long"), (None, "no file")])
def test_a_damaged_key_is_refused_and_left_as_it_is(tmp_path, content, got):
    path = tmp_path / "unit.key"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CorruptPaper, match=got):
        load_key(tmp_path)
    assert path.is_dir() if content is None else path.read_bytes() == content
