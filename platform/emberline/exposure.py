"""Exposures and outcomes: the rows that live traffic leaves, as Parquet partitioned by unit.

`exposures/part=<00-15>/<uuid>.parquet` holds one row a request and variant; `outcomes/part=<00-15>/…` what became known
later. Rows of one unit always meet in the same partition, so each partition can be joined alone. A unit's id never
reaches disk: `hash_unit` replaces it on entry, with one key per installation.
"""

import hashlib
import secrets
from pathlib import Path

import pyarrow as pa

from emberline import storage

NUM_PARTITIONS = 16

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
    ]
)


def load_key(folder: Path) -> bytes:
    """The installation's key for hashing unit ids, made on first use and readable by its owner only."""
    path = folder / "unit.key"
    if not path.is_file():
        storage.write_bytes(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()


def hash_unit(key: bytes, unit: str) -> str:
    """A unit's id as 32 hex digits, by BLAKE2b with the installation's key: not to be undone without it."""
    return hashlib.blake2b(unit.encode(), key=key, digest_size=16).hexdigest()


def partition_of(unit: str) -> int:
    """Partition of a hashed unit."""
    return int(unit[:8], 16) % NUM_PARTITIONS


def partition_name(unit: str) -> str:
    return f"part={partition_of(unit):02d}"
