"""A small typed client of the router: predictions, Open Inference Protocol calls, outcomes.

    with Client("http://127.0.0.1:8080") as client:
        answer = client.predict("digits", {"pixels": pixels}, unit="customer-17")
        print(answer.body["label"], answer.version)

Every call has a bounded number of tries, and each ends where the router is silent for too long. A try is repeated
only where that cannot do harm: after 429 and 503, as long after them as `Retry-After` asks, and where no connection
came about at all.
"""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

import httpx

from emberline.errors import EmberlineError, InvalidOption

UNIT_HEADER = "x-unit-id"
Datatype = Literal["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]

_RETRIED = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
_FIRST_BACK_OFF_S = 0.1
# of RFC 9110: what a header's name is made of, and no line break nor other control character in its value
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class RequestRefused(EmberlineError):
    """The router or the model answered with an error.

    Attributes:
        status: HTTP status.
        field: the field of the request that is wrong, where the answer names one.
    """

    def __init__(self, url: str, status: int, fact: str, field: str | None = None) -> None:
        self.status, self.field = status, field
        named = f"{field}: " if field and not fact.startswith((f"{field}: ", f"{field} ")) else ""
        super().__init__(f"answered {status}: {named}{fact}", place=url)


class NoAnswer(EmberlineError):
    """No answer came, or not in time."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"gave no answer: {why}", place=url, hint="is the router up? emberline status tells")


class UnusableAnswer(EmberlineError):
    """An answer came, and its body is not what this call is answered with."""

    def __init__(self, url: str, why: str) -> None:
        hint = "does a model's own handler answer there, or something else than the router?"
        super().__init__(f"answered what cannot be used: {why}", place=url, hint=hint)


def check_url(verb: str, option: str, given: str, *, hint: str) -> None:
    """Text that is no address is asked for ever, and never answers.

    Raises:
        InvalidOption: it is none of HTTP.
    """
    try:
        address = urlsplit(given)
        usable = address.scheme in {"http", "https"} and bool(address.hostname) and address.port != 0
    except ValueError:  # a port beyond 65535, a bracket that is not closed
        usable = False
    if not usable:
        raise InvalidOption(verb, option, given, "an address with http:// or https://", hint=hint)


def read_headers(verb: str, given: Sequence[str], *, but: Sequence[str]) -> dict[str, str]:
    """Headers as a command line has them, each `Name: value`.

    Args:
        but: names that the verb sends itself.

    Raises:
        InvalidOption: one cannot be sent, is given twice, or is sent already.
    """
    place, headers = f"emberline {verb}", dict[str, str]()
    for one in given:
        name, colon, value = one.partition(":")
        if not (colon and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value.strip())):
            raise InvalidOption(place, "--header", one, "a name, a colon and a value", hint="such as 'x-api-key: abc'")
        if name.lower() in map(str.lower, but):
            raise InvalidOption(place, "--header", name, "a header that the verb does not send itself")
        if name.lower() in map(str.lower, headers):
            raise InvalidOption(place, "--header", name, "each header once")
        headers[name] = value.strip()
    return headers


@dataclass(frozen=True)
class Answer:
    """A prediction, with what the router says of it.

    Attributes:
        body: JSON as the model's handler answers it; Emberline's own answer an object, such as of `label`, `score` and
            `scores`, or of `predictions`, a list of such objects.
        variant, version, config_version: of the experiment that the request fell into; None outside of one.
        request_id: to be named by outcomes of this one request.
    """

    body: Any
    variant: str | None = None
    version: str | None = None
    config_version: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Tensor:
    """One tensor of the Open Inference Protocol; `shape` has the rows first, `data` is flat."""

    name: str
    shape: tuple[int, ...]
    datatype: Datatype
    data: Sequence[Any]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "shape": list(self.shape), "datatype": self.datatype, "data": list(self.data)}


@dataclass(frozen=True)
class Inference:
    """What an Open Inference Protocol call came back with."""

    model: str
    model_version: str
    outputs: dict[str, Tensor]
    id: str | None = None
    answer: Answer = field(repr=False, kw_only=True)


@dataclass(frozen=True)
class Outcome:
    """What became known after a prediction.

    Attributes:
        event_id: unique; sending the same one again counts once.
        time: when it happened, in seconds since the epoch; when it arrives, where None.
    """

    event_id: str
    unit: str
    metric: str
    value: float
    request_id: str | None = None
    time: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


class Client:
    """A connection pool to one router; usable from several threads.

    Args:
        headers: sent with every call, such as an API key's.
        unit_header: that says whom a request is for, as the Experiment names it.
        timeout_s: longest silence of a try: until it is connected, and between two pieces of what is sent or read. An
            answer that comes in pieces may take longer as a whole.
        max_tries: tries of one call, the first included.
        max_wait_s: longest wait between two tries; a `Retry-After` beyond it ends the call with the error at hand.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        headers: Mapping[str, str] | None = None,
        unit_header: str = UNIT_HEADER,
        timeout_s: float = 10.0,
        max_tries: int = 4,
        max_wait_s: float = 10.0,
    ) -> None:
        self.url, self._unit_header = url.rstrip("/"), unit_header
        self._max_tries, self._max_wait_s = max_tries, max_wait_s
        self._http = httpx.Client(timeout=timeout_s, headers=_in_bytes(headers or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(
        self, model: str, instance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | bytes, *, unit: str | None = None
    ) -> Answer:
        """Predicts for one instance, for several, or for the bytes of one image.

        Args:
            instance: values by input name; a sequence of them comes back as `predictions`; bytes are a JPEG or PNG.
            unit: whom the request is for; the same unit always meets the same variant.

        Raises:
            RequestRefused: the answer was an error, of its last try where there were several.
            NoAnswer: nobody answered, or not in time.
            UnusableAnswer: the answer is no JSON.
        """
        path = f"/predictions/{quote(model, safe='')}"
        headers = self._headers(unit)
        if isinstance(instance, bytes):
            given = {b"content-type": b"application/octet-stream"} if "content-type" not in self._http.headers else {}
            return _answer(self._post(path, {**given, **headers}, content=instance))
        body = instance if isinstance(instance, Mapping) else {"instances": list(instance)}
        return _answer(self._post(path, headers, json=body))

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        *,
        id: str | None = None,  # noqa: A002 - the protocol's own word
        unit: str | None = None,
    ) -> Inference:
        """One call of the Open Inference Protocol, version 2.

        Raises:
            RequestRefused, NoAnswer: as for `predict`.
            UnusableAnswer: the answer is none of the protocol.
        """
        body = {**({"id": id} if id is not None else {}), "inputs": [tensor.as_json() for tensor in inputs]}
        headers = self._headers(unit)
        path = f"/v2/models/{quote(model, safe='')}/infer"
        answer = _answer(self._post(path, headers, json=body))
        try:
            return _inference(answer)
        except (KeyError, TypeError, AttributeError) as error:
            why = f"none of the Open Inference Protocol: {str(answer.body)[:200]}"
            raise UnusableAnswer(self.url + path, why) from error

    def post_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Hands outcomes in; returns how many were accepted. Safe to repeat: an event id counts once.

        Raises:
            RequestRefused, NoAnswer: as for `predict`.
            UnusableAnswer: the answer does not say how many.
        """
        answer = _answer(self._post("/v1/outcomes", {}, json={"outcomes": [outcome.as_json() for outcome in outcomes]}))
        if not isinstance(answer.body, dict) or not isinstance(accepted := answer.body.get("accepted"), int):
            raise UnusableAnswer(f"{self.url}/v1/outcomes", f"no number of outcomes accepted: {str(answer.body)[:200]}")
        return accepted

    def _headers(self, unit: str | None) -> dict[bytes, bytes]:
        return _in_bytes({self._unit_header: unit} if unit is not None else {})

    def _post(self, path: str, headers: Mapping[bytes, bytes], **content: Any) -> httpx.Response:
        url = self.url + path
        for number in range(1, self._max_tries + 1):
            last = number == self._max_tries
            try:
                answer = self._http.post(url, headers=dict(headers), **content)
            except httpx.ConnectError as error:  # nothing was sent, so nothing can happen twice
                if last:
                    raise NoAnswer(url, str(error)) from error
                time.sleep(self._wait_s(number, None))
                continue
            except httpx.HTTPError as error:
                raise NoAnswer(url, str(error) or type(error).__name__) from error
            if not answer.is_error:
                return answer
            wait_s = self._wait_s(number, answer.headers.get("retry-after"))
            if last or answer.status_code not in _RETRIED or wait_s > self._max_wait_s:
                raise _refusal(url, answer)
            time.sleep(wait_s)
        raise AssertionError("a try returns, raises, or is followed by another")

    def _wait_s(self, number: int, retry_after: str | None) -> float:
        """As long as the server asks; else 0.1, 0.2, 0.4, … s, spread so that clients do not come back all at once."""
        asked = seconds_of(retry_after)
        if asked is not None:
            return asked
        return min(self._max_wait_s, _FIRST_BACK_OFF_S * 2.0 ** (number - 1) * random.uniform(0.5, 1.5))  # noqa: S311 - spread, no secret


def _in_bytes(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """As they travel: of text, httpx sends ASCII alone."""
    return {name.encode(): value.encode() for name, value in headers.items()}


def seconds_of(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now: a number or a date; None where it is neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _answer(response: httpx.Response) -> Answer:
    url = str(response.request.url)
    try:
        body = response.json()
    except ValueError as error:
        raise UnusableAnswer(url, f"no JSON: {response.text[:200]!r}") from error
    headers = response.headers
    return Answer(
        body,
        variant=headers.get("x-variant"),
        version=headers.get("x-model-version"),
        config_version=headers.get("x-config-version"),
        request_id=headers.get("x-request-id"),
    )


def _inference(answer: Answer) -> Inference:
    """Raises KeyError, TypeError or AttributeError where the body is none."""
    body = answer.body
    outputs = [Tensor(one["name"], tuple(one["shape"]), one["datatype"], one["data"]) for one in body["outputs"]]
    return Inference(
        model=body["model_name"],
        model_version=body["model_version"],
        outputs={tensor.name: tensor for tensor in outputs},
        id=body.get("id"),
        answer=answer,
    )


def _refusal(url: str, response: httpx.Response) -> RequestRefused:
    """The error's own text and field where the body has them, else the body's beginning."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return RequestRefused(url, response.status_code, response.text.strip()[:300] or response.reason_phrase)
    fact = body.get("error", body.get("message", response.reason_phrase))
    return RequestRefused(url, response.status_code, str(fact), body.get("field"))
