"""One real prediction of each version, compared with what the artifact says the model answers."""

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from emberline import assets
from emberline.artifact import Probe
from emberline.serve import http

_SAME_PLACE = 0.5  # overlap of two boxes of one object, as intersection over union
_SHARE = 0.05  # of the pixels
_SCALED = 0.05  # of a number that a user's handler made

Outcome = Literal["matched", "mismatched", "failed", "busy", "no probe"]


@dataclass(frozen=True)
class Result:
    """What a probe came back with.

    Attributes:
        outcome: `busy` is a full queue or no worker (503), which says nothing about the answer; `no probe` means that
            the archive carries none.
        detail: got against expected, or why there was no answer.
    """

    outcome: Outcome
    detail: str = ""
    seconds: float = 0.0


def ask(address: str, model: str, version: str, probe: Probe | None, *, timeout_s: float) -> Result:
    """Sends the probe's instance as a client would, naming the version, and compares the answer."""
    if probe is None:
        return Result("no probe")
    began = time.monotonic()
    try:
        answer = http.CLIENT.post(
            f"http://{address}/predictions/{model}/{version}", json=probe.instance, timeout=timeout_s
        )
    except httpx.HTTPError as error:
        return Result("failed", f"no answer: {error!r}", time.monotonic() - began)
    seconds = time.monotonic() - began
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return Result("busy", answer.text.strip(), seconds)
    if answer.is_error:
        return Result("failed", f"{answer.status_code}: {answer.text.strip()[:500]}", seconds)
    body: object
    try:
        body = answer.json()
    except ValueError:
        if not isinstance(probe.answer, str):
            return Result("mismatched", f"got no JSON: {answer.text[:200]!r}", seconds)
        body = answer.content.decode(errors="replace")
    outcome, detail = compare(body, probe)
    return Result(outcome, detail, seconds)


def compare(body: object, probe: Probe) -> tuple[Outcome, str]:
    """An answer's numbers against the probe's raw outputs.

    A classifier answers `scores`, the softmax of its raw outputs; softmax never enlarges the largest difference, so the
    probe's tolerance holds for it too. Other models answer `outputs`, the raw ones; or what the probe holds itself.
    """
    if probe.answer is not None:
        return _compare_answer(body, probe.answer, probe.tolerance)
    if not isinstance(body, dict) or not isinstance(got := body.get("scores", body.get("outputs")), list):
        return "mismatched", f"got {str(body)[:200]}; expected `scores` or `outputs`"
    expected = _softmax(probe.expected) if "scores" in body else list(probe.expected)
    numbers = _flatten(got)
    if len(numbers) != len(expected):
        return "mismatched", f"got {len(numbers)} numbers; expected {len(expected)}"
    differences = [abs(a - b) for a, b in zip(numbers, expected, strict=True)]
    # NaN compares false with everything, so the test is for what is right
    if all(difference <= probe.tolerance for difference in differences):
        return "matched", ""
    shown = f"got {_short(numbers)}, expected {_short(expected)}"
    return "mismatched", f"{shown}: the largest difference {max(differences):.4g} is over {probe.tolerance:g}"


def _compare_answer(body: object, expected: Any, tolerance: float) -> tuple[Outcome, str]:
    """Detections: each that is expected is found, by label and place. Shares: each is about what is expected.

    Packages of lower precision move boxes and borders a little, so equality is not asked for. Anything else is what a
    user's handler says.
    """
    if expected == {}:
        return "matched", ""
    if not isinstance(expected, dict) or not expected.keys() & {"detections", "shares"}:
        if _alike(body, expected, tolerance):
            return "matched", ""
        return "mismatched", f"got {str(body)[:200]}; expected {str(expected)[:200]}"
    got = body if isinstance(body, dict) else {}
    try:
        if "detections" in expected:
            boxes = assets.handler_module("ember_boxes")
            told = [(one["label"], [one["box"]]) for one in got["detections"]]
            wrong = [
                one
                for one in expected["detections"]
                if not any(
                    label == one["label"] and boxes.overlaps(box, [one["box"]])[0, 0] >= _SAME_PLACE
                    for label, box in told
                )
            ]
        else:
            told = got["shares"]
            wrong = [(name, part) for name, part in expected["shares"].items() if not abs(told[name] - part) <= _SHARE]
    except (KeyError, TypeError, ValueError, IndexError):
        return "mismatched", f"got {str(body)[:200]}; expected {str(expected)[:200]}"
    return ("mismatched", f"got {str(told)[:200]}, without {str(wrong)[:200]}") if wrong else ("matched", "")


def _alike(got: object, expected: object, tolerance: float) -> bool:
    """Whether two JSON values have the same keys, lengths and texts, and about the same numbers."""
    if isinstance(expected, dict):
        same = isinstance(got, dict) and got.keys() == expected.keys()
        return same and all(_alike(got[key], value, tolerance) for key, value in expected.items())  # type: ignore[index]
    if isinstance(expected, list):
        same = isinstance(got, list) and len(got) == len(expected)
        return same and all(_alike(one, other, tolerance) for one, other in zip(got, expected, strict=True))  # type: ignore[call-overload]
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        number = isinstance(got, int | float) and not isinstance(got, bool)
        # the handler may have scaled what the tolerance is meant for
        return number and abs(got - expected) <= max(tolerance, _SCALED * abs(expected))  # type: ignore[operator]
    return type(got) is type(expected) and got == expected  # else 1 would be true


def _softmax(values: tuple[float, ...]) -> list[float]:
    highest = max(values)
    exponents = [math.exp(value - highest) for value in values]
    total = sum(exponents)
    return [exponent / total for exponent in exponents]


def _flatten(value: list[object]) -> list[float]:
    numbers: list[float] = []
    for item in value:
        if isinstance(item, list):
            numbers += _flatten(item)
        else:
            numbers.append(float(item) if isinstance(item, int | float) else math.nan)
    return numbers


def _short(numbers: list[float]) -> str:
    shown = ", ".join(f"{number:.4g}" for number in numbers[:10])
    return f"[{shown}{', …' if len(numbers) > 10 else ''}]"  # noqa: PLR2004 - as many as a line takes
