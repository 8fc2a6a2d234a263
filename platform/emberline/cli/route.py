"""`emberline route`: one address for all versions of all models."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

from cyclopts import Parameter

from emberline.runlog import SERVER_MAX_BYTES, RunLog

Several = Annotated[tuple[str, ...], Parameter(negative="")]


def route(
    *,
    experiments: Path | None = None,
    upstream: Several = (),
    default: Several = (),
    host: str = "127.0.0.1",
    port: int = 8080,
    admin_port: int = 0,
    data: Path = Path("data"),
    state: Path = Path("state"),
    dashboard: str | None = None,
    timeout_s: float = 10.0,
    max_body_bytes: int = 8 << 20,
    max_requests: int = 1024,
    requests_per_s: int | None = None,
    unit_requests_per_s: int | None = None,
    unit_header: Several = ("x-unit-id",),
    holdout: float = 0.0,
    processes: int = 1,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    api_keys: Path | None = None,
    jwks: Path | None = None,
    jwt_issuer: str | None = None,
    jwt_audience: str | None = None,
    jwt_claim: Several = ("sub",),
    generation_s: float = 60.0,
    keep: str | None = None,
    samples: str | None = None,
    sketches: bool = False,
) -> None:
    """Route requests to versions as the experiments say, and keep their exposures and outcomes.

    SIGTERM drains and ends; SIGHUP restarts Envoy without refusing a connection.

    Args:
        experiments: Folder of experiments; it is followed while the router runs. Without it state/experiments, which
            is made where it is not there.
        upstream: MODEL@VERSION=HOST:PORT, where a version is served. Once a version.
        default: MODEL=VERSION, what answers while no experiment is on.
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        admin_port: Port of Envoy's admin address, on loopback only; 0 picks a free one.
        data: Folder of exposures and outcomes.
        state: Folder for route.json, Envoy's files and its log.
        dashboard: HOST:PORT of a dashboard, shown at /dashboard.
        timeout_s: Seconds a request may take, retries included; then 504.
        max_body_bytes: Larger requests get 413.
        max_requests: Requests in flight per variant; more get 503.
        requests_per_s: Requests per second of all clients; more get 429. No limit when absent.
        unit_requests_per_s: Requests per second of one unit; more get 429. No limit when absent.
        unit_header: Headers that experiments may take units from.
        holdout: Share of units that no experiment gets, of any model.
        processes: Envoys that share the port; a dead one then costs its requests in flight alone.
        tls_cert: Certificate (chain) to serve by TLS with, PEM; another one is taken once a rename put it there.
        tls_key: Its key.
        api_keys: YAML file of `client: key`; each request must bring one as x-api-key. SIGHUP has it read again.
        jwks: File of the keys that sign JSON Web Tokens; each request must bring a token.
        jwt_issuer: Who must have issued them.
        jwt_audience: Whom they must be meant for; anybody when absent.
        jwt_claim: Claims that experiments may take for a unit.
        generation_s: Seconds after which the raw log is closed, shipped and deleted.
        keep: How long exposures and outcomes are kept, such as 90d; for ever when absent.
        samples: Keep bodies of requests on which a shadow disagreed, for labelling, this long, such as 7d. They are
            personal data as a rule; none are kept when absent.
        sketches: Keep mergeable sketches in --data for the live page. Needs the extra `sketches`.
    """
    from emberline import process
    from emberline.experiment import parse_duration
    from emberline.route.edge import read_api_keys, read_tls, read_tokens
    from emberline.route.folders import Folders, find_experiments, sole_owner
    from emberline.route.settings import (
        Address,
        Edge,
        Settings,
        parse_address,
        parse_defaults,
        parse_headers,
        parse_limits,
        parse_port,
        parse_processes,
        parse_seconds,
        parse_share,
        parse_upstreams,
    )
    from emberline.route.supervisor import Router

    settings = Settings(
        parse_upstreams(upstream),
        parse_defaults(default),
        Address(host, parse_port(port, "--port") or process.free_port()),
        parse_address(dashboard, "--dashboard") if dashboard else None,
        parse_limits(
            timeout_s=timeout_s,
            max_body_bytes=max_body_bytes,
            max_requests=max_requests,
            requests_per_s=requests_per_s,
            unit_requests_per_s=unit_requests_per_s,
        ),
        Edge(
            read_tls(tls_cert, tls_key),
            read_tokens(jwks, jwt_issuer, jwt_audience, jwt_claim),
            read_api_keys(api_keys) if api_keys else None,
        ),
        unit_headers=parse_headers(unit_header),
        holdout=parse_share(holdout, "--holdout"),
        processes=parse_processes(processes),
        taps=data.absolute() / "spool" / "taps" if samples is not None else None,
    )
    envoy_port = parse_port(admin_port, "--admin-port")
    keep_s = parse_duration(keep, "--keep", above=0) if keep is not None else None
    samples_s = parse_duration(samples, "--samples", above=0) if samples is not None else 0.0
    folders = Folders(
        find_experiments(experiments),
        data,
        state,
        parse_seconds(generation_s, "--generation-s", hint="60 is taken without it"),
        keep_s=keep_s,
        keep_samples_s=samples_s,
        sketches=sketches,
        api_keys=api_keys,
    )
    log = RunLog(state / "route.jsonl", needed=False, max_bytes=SERVER_MAX_BYTES)
    with sole_owner(folders, log.say):
        router = Router(settings, folders, envoy_port, log)

        def end(_number: int, _frame: FrameType | None) -> None:
            router.stopping.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, lambda *_: router.restart())
        try:
            router.start()
            log.say(f"routing at {'https' if settings.edge.tls else 'http'}://{settings.listen}")
            router.run()
        finally:
            router.stop()
