"""Requests a second of a 224² photograph (JPEG), our int8 package against the peers serving fp32 in eager mode.

MobileNetV2 of the zoo, untrained: what is compared is the servers' work, and int8's agreement with fp32 stands in for
the accuracy gate (`emberline compress` measures the real one). wrk sends the JPEG itself; Triton gets it as base64.
"""

import io
from pathlib import Path

import _throughput
import numpy as np
from _compressed import GATE, untrained_pictures
from PIL import Image

TARGET = "≥ 5 times each peer's requests a second at 16 connections, with int8 agreeing with fp32 on 98 % of rows"
TRIALS = 5


def trial(folder: Path, number: int) -> dict[str, object]:
    made = untrained_pictures()
    body = folder / "body"
    body.write_bytes(photograph())
    servers = _throughput.round_of(made.ours, made.of_peers, body, folder, number=number, content_type="image/jpeg")
    return {"servers": servers, "accuracy_drop": made.accuracy_drop}


def photograph() -> bytes:
    """A picture of soft shapes, 224 by 224: its JPEG has the size of a photograph's."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 255, (28, 28, 3), dtype=np.uint8)).resize((224, 224))
    noisy = np.clip(np.asarray(coarse, np.int16) + draw.integers(-12, 12, (224, 224, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def summary(trials: list[dict[str, object]]) -> dict[str, object]:
    return _throughput.summarise_compressed(trials, GATE)
