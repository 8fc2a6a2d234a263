"""Requests a second of a sentence: the distilled int8 encoder against peers serving the fp32 MiniLM it learned from.

Both come of `recipes/sst2-encoder.yaml`, trained and compressed by the commands at its top (about an hour): MiniLM-L6
fine-tuned on SST-2, in eager mode, and the `small` artifact that passed the recipe's gate. The sentence has as many
tokens as SST-2's have on average.
"""

import json
from pathlib import Path

import _throughput
from _compressed import trained

GATE = 0.015  # of the drop as measured; the recipe gates its bound
TARGET = f"≥ 5 times each peer's requests a second at 16 connections, with an accuracy drop of at most {GATE:.1%}"
TRIALS = 5
SENTENCE = "a warm and funny film whose fine cast carries a thin plot much farther than it has any right to go"


def trial(folder: Path, number: int) -> dict[str, object]:
    made = trained("sst2-encoder", "small")
    body = folder / "body"
    body.write_text(json.dumps({"sentence": SENTENCE}))
    servers = _throughput.round_of(made.ours, made.of_peers, body, folder, number=number)
    return {"servers": servers, "accuracy_drop": made.accuracy_drop}


def summary(trials: list[dict[str, object]]) -> dict[str, object]:
    return _throughput.summarise_compressed(trials, GATE)
