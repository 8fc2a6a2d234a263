"""Requests a second of a text of 100 words, our int8 package against the peers serving fp32 in eager mode.

An encoder of MiniLM-L6's shape (128 tokens), untrained: what is compared is the servers' work, and int8's agreement
with fp32 stands in for the accuracy gate.
"""

import json
from pathlib import Path

import _throughput
from _compressed import artifacts

TARGET = "≥ 5 times each peer's requests a second at 16 connections, with int8 agreeing with fp32 on 98 % of rows"
TRIALS = 5


def trial(folder: Path, number: int) -> dict[str, object]:
    made = artifacts("text")
    body = folder / "body"
    body.write_text(json.dumps({"text": "a warm and good film with a short plot of fine roles " * 9}))
    servers = _throughput.round_of(made.int8, made.of_peers, body, folder, number=number)
    return {"servers": servers, "agreement": made.agreement}


def summary(trials: list[dict[str, object]]) -> dict[str, object]:
    return _throughput.summarise_compressed(trials)
