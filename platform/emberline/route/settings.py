"""What a router is told when it starts: addresses, versions, and the limits it protects models with."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from emberline.errors import InvalidOption
from emberline.experiment import TOTAL_WEIGHT

MOST_PROCESSES = 8
_MOST = (1 << 32) - 1  # what Envoy counts to
_DAY_S = 86_400
_UPSTREAM = "such as digits@1.0=127.0.0.1:8085"
_SERVED = re.compile(r"[\w.-]+@[\w.-]+")
CLAIM_HEADER = "x-ember-claim-"
"""Prefix of the header that a token's claim travels in; clients cannot set it."""


class Address(NamedTuple):
    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Served(NamedTuple):
    """One version of one model."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True)
class Limits:
    """How much of a client, and how long for a model, the router bears.

    Attributes:
        timeout_s: a whole request, retries included; TorchServe's own client timeout must be above it.
        max_body_bytes: larger requests get 413; an answer must be no larger either.
        max_requests: in flight per variant; more get 503 at once instead of a queue that nobody waits for.
        num_retries: of a request that no model has answered; predictions change nothing, so they may be repeated.
        requests_per_s: of all clients together; more get 429. None: no limit. Each process of the router counts alone,
            and gets its share.
        unit_requests_per_s: of each unit; more get 429. None: no limit.
        slow_client_s: to send a whole request; a slow client would hold a connection to TorchServe for ever.
    """

    timeout_s: float = 10.0
    max_body_bytes: int = 8 << 20
    max_requests: int = 1024
    num_retries: int = 2
    requests_per_s: int | None = None
    unit_requests_per_s: int | None = None
    slow_client_s: float = 30.0


@dataclass(frozen=True)
class Tls:
    """Files of the certificate (chain) and its key, PEM; replaced files are taken within a second."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Tokens:
    """JSON Web Tokens that clients must bring.

    Attributes:
        jwks: file of the keys that sign them; a replaced one is taken.
        audience: one that a token must name; any where None.
        claims: that experiments may take for a unit.
    """

    jwks: Path
    issuer: str
    audience: str | None = None
    claims: tuple[str, ...] = ("sub",)


@dataclass(frozen=True)
class Edge:
    """What stands between clients and models.

    Attributes:
        api_keys: keys by client, of which each request must bring one as `x-api-key`; None asks for none.
    """

    tls: Tls | None = None
    tokens: Tokens | None = None
    api_keys: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that stays the same while a router runs; experiments are what changes.

    Attributes:
        upstreams: where each version is served; several versions may share an address.
        defaults: version by model, for models without an experiment.
        dashboard: proxied at /dashboard, where given.
        unit_headers: that experiments may take units from; of one that is sent twice, the first counts.
        holdout: units out of 10,000 that no experiment gets, of any model.
        processes: Envoys that share the port.
        taps: folder that bodies of mirrored requests are left in until the two answers are known; None: they are not.
    """

    upstreams: Mapping[Served, Address]
    defaults: Mapping[str, str]
    listen: Address
    dashboard: Address | None = None
    limits: Limits = field(default_factory=Limits)
    edge: Edge = field(default_factory=Edge)
    unit_headers: tuple[str, ...] = ("x-unit-id",)
    holdout: int = 0
    processes: int = 1
    taps: Path | None = None

    def __post_init__(self) -> None:
        if not self.listen.is_ip:
            hint = "127.0.0.1 is for this machine alone, 0.0.0.0 for all that reach it"
            raise InvalidOption("route", "--host", self.listen.host, "an IP address", hint=hint)
        for model, version in self.defaults.items():
            if Served(model, version) not in self.upstreams:
                raise InvalidOption(
                    "--default",
                    f"{model}={version}",
                    "without an upstream",
                    f"one of {', '.join(map(str, self.upstreams)) or 'the upstreams'}",
                    hint=f"add --upstream {model}@{version}=HOST:PORT",
                )

    @property
    def url(self) -> str:
        """Where this machine reaches the router; one that listens everywhere is reached at loopback."""
        host, port = self.listen
        if ipaddress.ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        return f"{'http' if self.edge.tls is None else 'https'}://{Address(host, port)}"


def parse_address(text: str, option: str) -> Address:
    """`HOST:PORT`.

    Raises:
        InvalidOption: names the option.
    """
    host, colon, port = text.rpartition(":")
    if not (colon and host and "/" not in host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InvalidOption(option, "address", text, "HOST:PORT", hint="such as 127.0.0.1:8085")
    return Address(host.strip("[]"), int(port))


def parse_port(port: int, option: str) -> int:
    """A port to listen on, or 0 for a free one.

    Raises:
        InvalidOption: it is no port.
    """
    if not 0 <= port < 1 << 16:
        raise InvalidOption("route", option, port, "a number from 0 to 65535", hint="0 picks a free one")
    return port


def parse_upstreams(texts: Iterable[str]) -> dict[Served, Address]:
    """`MODEL@VERSION=HOST:PORT` each."""
    found: dict[Served, Address] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        model, _, version = name.partition("@")
        if not equals or not _SERVED.fullmatch(name):
            raise InvalidOption("--upstream", "upstream", text, "MODEL@VERSION=HOST:PORT", hint=_UPSTREAM)
        served = Served(model, version)
        if served in found:
            raise InvalidOption(
                "--upstream", str(served), "given twice", "one address a version", hint="leave the other one out"
            )
        found[served] = parse_address(address, "--upstream")
    return found


def parse_defaults(texts: Iterable[str]) -> dict[str, str]:
    """`MODEL=VERSION` each."""
    found: dict[str, str] = {}
    for text in texts:
        model, equals, version = text.partition("=")
        if not (equals and model and version):
            raise InvalidOption("--default", "default", text, "MODEL=VERSION", hint="such as digits=1.0")
        if model in found:
            hint = "experiments choose between versions; the default answers where none is on"
            raise InvalidOption("--default", model, "given twice", "one default a model", hint=hint)
        found[model] = version
    return found


def parse_share(share: float, option: str) -> int:
    """Units out of 10,000.

    Raises:
        InvalidOption: it is no share, or smaller than one of 10,000.
    """
    units = round(share * TOTAL_WEIGHT) if 0 <= share < 1 else -1  # NaN is neither
    if units < 0 or (share and not units):
        required = f"0, or from {1 / TOTAL_WEIGHT:g} to below 1"
        raise InvalidOption(option, "share", share, required, hint="0.05 is one unit in twenty")
    return units


def parse_processes(number: int) -> int:
    """How many Envoys.

    Raises:
        InvalidOption: none, or too many.
    """
    if not 1 <= number <= MOST_PROCESSES:
        hint = "2 keep the port open while one of them is started again"
        raise InvalidOption("route", "--processes", number, f"a number from 1 to {MOST_PROCESSES}", hint=hint)
    return number


def parse_limits(
    *,
    timeout_s: float,
    max_body_bytes: int,
    max_requests: int,
    requests_per_s: int | None,
    unit_requests_per_s: int | None,
) -> Limits:
    """Limits as the options say.

    Raises:
        InvalidOption: one that would answer nobody, or that Envoy cannot hold.
    """
    limits = Limits(
        timeout_s=parse_seconds(timeout_s, "--timeout-s", hint="10 is taken without it"),
        max_body_bytes=max_body_bytes,
        max_requests=max_requests,
        requests_per_s=requests_per_s,
        unit_requests_per_s=unit_requests_per_s,
    )
    hints = {
        "max_body_bytes": "8388608 is taken without it",
        "max_requests": "1024 is taken without it",
        "requests_per_s": "leave it out for no limit",
        "unit_requests_per_s": "leave it out for no limit",
    }
    for name, hint in hints.items():
        value = getattr(limits, name)
        if value is not None and not 1 <= value <= _MOST:
            option = f"--{name.replace('_', '-')}"
            raise InvalidOption("route", option, value, f"a whole number from 1 to {_MOST:,}", hint=hint)
    return limits


def parse_seconds(value: float, option: str, *, hint: str) -> float:
    """A span of time above 0.

    Raises:
        InvalidOption: it is none, or longer than a day.
    """
    if not 0 < value <= _DAY_S:  # NaN is neither
        raise InvalidOption("route", option, value, f"more than 0, and at most {_DAY_S:,}", hint=hint)
    return value


def parse_headers(names: Iterable[str]) -> tuple[str, ...]:
    """Names of headers, in lower case as experiments have them.

    Raises:
        InvalidOption: one is none, or one of the router's own.
    """
    found = tuple(name.lower() for name in names)
    for name in found:
        own = name.startswith(("x-ember-", "x-envoy-")) or name in {"host", "cookie", "authorization", "x-request-id"}
        if own or not re.fullmatch("[a-z0-9-]+", name):
            hint = "letters, digits and dashes; those of HTTP, Envoy and the router are taken"
            required = "a header of clients' own, such as x-unit-id"
            raise InvalidOption("--unit-header", "header", name, required, hint=hint)
    return found
