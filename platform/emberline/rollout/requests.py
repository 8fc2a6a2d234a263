"""What people ask of a running rollout: pause, resume, abort or force, left as a file beside the experiment.

The controller alone writes a status, so a request is a file that it picks up, carries out and removes. Carrying one out
twice changes nothing, so being killed in between does no harm.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import orjson

from emberline import storage
from emberline.errors import CorruptPaper
from emberline.rollout.phases import Action


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        target: of a force: `ship`, or the number of a later step, from 1 on.
    """

    action: Action
    reason: str
    at: float
    target: str | None = None


def request_path(experiments: Path, name: str) -> Path:
    return experiments / f"{name}.request.json"


def leave_request(experiments: Path, name: str, action: Action, reason: str, target: str | None = None) -> Path:
    path = request_path(experiments, name)
    storage.write_bytes(path, orjson.dumps(Request(action, reason, time.time(), target)))
    return path


def read_request(experiments: Path, name: str) -> Request | None:
    """The request that waits, if any.

    Raises:
        CorruptPaper: somebody wrote the file by hand and wrongly.
    """
    path = request_path(experiments, name)
    if not path.is_file():
        return None
    try:
        request = Request(**orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, TypeError) as error:
        raise CorruptPaper(path, "no request", "action, reason and at", hint="remove the file") from error
    if request.action not in get_args(Action):
        raise CorruptPaper(path, f"action {request.action!r}", " or ".join(get_args(Action)), hint="remove the file")
    return request


def remove_request(experiments: Path, name: str) -> None:
    request_path(experiments, name).unlink(missing_ok=True)
