"""Exposures and outcomes: the rows that live traffic leaves, as Parquet partitioned by unit.

`exposures/part=<00-15>/<uuid>.parquet` holds one row a request and variant; `outcomes/part=<00-15>/…` what became known
later. Rows of one unit always meet in the same partition, so each partition can be joined alone. A unit's id never
reaches these files: `hash_unit` replaces it on entry, with one key per installation.
"""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from emberline import storage
from emberline.errors import CorruptPaper, EmberlineError

Row = dict[str, Any]

NUM_PARTITIONS = 16
KEY = "unit.key"
_KEY_BYTES = 32

EXPOSURES = pa.schema(
    [
        ("time_us", pa.int64()),  # Unix time of the request, microseconds
        ("experiment", pa.string()),
        ("config_version", pa.string()),  # which weights were in force
        ("unit", pa.string()),  # keyed hash, hex
        ("request_id", pa.string()),
        ("model", pa.string()),
        ("variant", pa.string()),  # assigned
        ("served_variant", pa.string()),  # the one that answered; differs only when an arm was dead
        ("version", pa.string()),
        ("shadow", pa.bool_()),  # a mirrored copy: its answer reached nobody
        ("status", pa.int16()),  # HTTP status, 0 when the client went away
        ("latency_ms", pa.float64()),
        ("label", pa.string()),  # predicted class, null where the answer has none
        ("score", pa.float64()),  # its probability
    ]
)

OUTCOMES = pa.schema(
    [
        ("time_us", pa.int64()),
        ("event_id", pa.string()),  # idempotency key: a second row of the same id does not count
        ("unit", pa.string()),  # keyed hash, hex
        ("request_id", pa.string()),  # null where the outcome is of the unit, not of one request
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("received_us", pa.int64()),  # Unix time it was taken at, microseconds; null in rows of earlier versions
    ]
)

_OK = 200


class UnreadableLine(EmberlineError):
    """A line of the router's log that is no exposure: cut off by a crash, or not written by the router."""

    def __init__(self, line: bytes, fact: str) -> None:
        super().__init__(f"{fact}: {line[:80]!r}", place="exposure log")


def parse_line(line: bytes, key: bytes) -> Row:
    """One exposure from one line of the router's access log; the unit's id leaves here hashed.

    The answer's label and score count for answers of status 200 only: an error's body may say anything.

    Raises:
        UnreadableLine: the line is not one that the router wrote.
    """
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnreadableLine(line, "not JSON") from error
    try:
        status = int(raw["status"] or 0)
        latency_us = raw["latency_us"]
        # the last byte never left when the client went away: then the whole duration, in milliseconds, is what is known
        latency_ms = float(raw["duration_ms"]) if latency_us is None else latency_us / 1000
        seconds, _, micros = raw["time"].partition(".")
        label, score = (raw["label"], raw["score"]) if status == _OK else (None, None)
        return {
            "time_us": int(seconds) * 1_000_000 + int(micros),
            "experiment": raw["experiment"],
            "config_version": raw["config_version"],
            "unit": hash_unit(key, raw["unit"]),
            "request_id": raw["request_id"],
            "model": raw["model"],
            "variant": _text(raw["variant"]),  # null for a copy that came after its experiment had gone
            "served_variant": raw["variant"],
            "version": raw["version"],
            "shadow": raw["shadow"],
            "status": status,
            "latency_ms": latency_ms,
            "label": None if label is None else str(label),
            "score": float(score) if isinstance(score, int | float) else None,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableLine(line, f"without a usable {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def load_key(folder: Path) -> bytes:
    """The installation's key for hashing unit ids, made on first use and readable by its owner only.

    Several processes may ask at once: the first one's key becomes everybody's.

    Raises:
        CorruptPaper: what is there is no key; another one would make a stranger of each unit that was seen.
    """
    path = folder / KEY
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".unit.key.{secrets.token_hex(4)}.partial")
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first
            path.hardlink_to(partial)
        partial.unlink()
        storage.sync_folder(folder)
    hint = "restore it from a copy: with another key no unit seen before is known again"
    if not path.is_file():
        raise CorruptPaper(path, "no file", "the key that unit ids are hashed with", hint=hint)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise CorruptPaper(path, f"{len(key)} bytes long", f"a key of {_KEY_BYTES} bytes", hint=hint)
    return key


def hash_unit(key: bytes, unit: str) -> str:
    """A unit's id as 32 hex digits, by BLAKE2b with the installation's key: not to be undone without it."""
    return hashlib.blake2b(unit.encode(), key=key, digest_size=16).hexdigest()


def partition_of(unit: str) -> int:
    """Partition of a hashed unit."""
    return int(unit[:8], 16) % NUM_PARTITIONS


def partition_name(unit: str) -> str:
    return f"part={partition_of(unit):02d}"
