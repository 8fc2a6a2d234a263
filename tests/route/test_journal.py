"""Outcomes are on the disk before they are confirmed, and senders that come together share the wait."""

import asyncio
import os

import orjson

from emberline.route.outcomes import Journal, parse_outcomes, read_spooled
from emberline.route.spool import Spool


def rows(number: int) -> list[dict]:
    outcome = {"event_id": f"e{number}", "unit": "u", "metric": "correct", "value": 1}
    return parse_outcomes(orjson.dumps({"outcomes": [outcome]}), b"key", 1.0)


async def append_all(journal: Journal, numbers: range) -> None:
    writing = asyncio.create_task(journal.run())
    await asyncio.gather(*(journal.append(rows(number)) for number in numbers))
    writing.cancel()


def written(spool: Spool) -> list[str]:
    return [read_spooled(line)["event_id"] for path in spool.generations() for line in path.read_bytes().splitlines()]


def test_what_was_confirmed_is_written_once_in_few_writes(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor, real=os.fsync: synced.append(descriptor) or real(descriptor))
    spool = Spool(tmp_path, "outcomes")
    asyncio.run(append_all(Journal(spool, 60), range(500)))
    assert written(spool) == [f"e{number}" for number in range(500)]
    assert 1 <= len(synced) < 50


def test_a_generation_that_is_old_enough_is_closed_and_another_begins(tmp_path):
    spool = Spool(tmp_path, "outcomes")
    journal = Journal(spool, generation_s=0)

    async def three_times() -> None:
        for number in range(3):
            await append_all(journal, range(number, number + 1))
            assert not any(journal.is_open(path) for path in spool.generations())

    asyncio.run(three_times())
    assert len(spool.generations()) == 3
    assert written(spool) == ["e0", "e1", "e2"]
