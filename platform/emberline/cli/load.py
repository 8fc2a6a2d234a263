"""`emberline load`: open-loop traffic at a given rate, and how long it waited."""

import math
from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Header, Set, find_recipe, require_at_least

_MOST_REQUESTS = 10_000_000  # all of their times are kept


def load(
    *files: Path,
    rate: float,
    seconds: float = 30.0,
    url: str = "http://127.0.0.1:8080",
    model: str | None = None,
    recipe: Path = DEFAULT_RECIPE,
    settings: Set = (),
    unit_header: str = "x-unit-id",
    header: Header = (),
    even: bool = False,
    seed: int = 0,
    timeout_s: float = 15.0,
    max_connections: int = 1000,
    plot: Path | None = None,
) -> int:
    """Send requests at a rate that no slow answer holds up; print percentiles of latency from when each was due.

    Under an experiment these requests are traffic like any other: units named load-0, load-1, … take part in it.
    Exits with 1 when any request failed.

    Args:
        files: Bodies to send in turns (JSON, JPEG, PNG, or folders of them); none means validation rows of the recipe.
        rate: Requests a second.
        seconds: How long requests are sent.
        url: The router's address.
        model: The model's name at the router; the recipe's, if not given.
        recipe: Recipe that names the model and the data.
        unit_header: Header that says whom a request is for.
        even: Send evenly, not as independent clients come (Poisson).
        seed: Of the times of arrival.
        timeout_s: Seconds after which a request is given up.
        max_connections: Requests under way at most; more wait, which counts in their latency.
        plot: File to draw latency by percentile into, such as load.svg.
    """
    from urllib.parse import urlsplit

    from rich.console import Console
    from rich.table import Table

    from emberline.client import read_headers
    from emberline.errors import InvalidSetting
    from emberline.load import bodies, drive, latency
    from emberline.load.connection import OWN_HEADERS, Target
    from emberline.recipe import load_recipe
    from emberline.runlog import RunLog, warn

    _check(rate, seconds, url, timeout_s=timeout_s, max_connections=max_connections, seed=seed)
    headers = read_headers("load", header, but=(unit_header, *OWN_HEADERS))
    known = None if files and model else load_recipe(path := find_recipe(recipe), settings)
    if model is None:
        if known is None or known.archive is None:
            raise InvalidSetting(path, "archive", None, "a section that names the model", hint="or name it by --model")
        model = known.archive.model
    if files:
        sent = bodies.from_files(files)
    else:
        from emberline import data

        assert known is not None  # noqa: S101 - read above, as there are no files
        sent = bodies.from_rows(data.load(known.data, path.parent).validation)
    parts = urlsplit(url)
    target = Target(parts.hostname or "127.0.0.1", parts.port or 80, f"/predictions/{model}", headers)
    due = drive.arrivals(rate, seconds, seed=seed, even=even)
    log = RunLog()
    log.say(f"{len(due)} requests in {seconds:g} s to {url}{target.path}, {len(sent)} bodies in turns")
    with log.progress("requests", len(due)) as advance:
        samples = drive.drive(
            target,
            sent,
            due,
            timeout_s=timeout_s,
            max_connections=max_connections,
            unit_header=unit_header,
            advance=advance,
        )
    found = latency.latencies(samples)
    table = Table("percentile", "ms from when it was due", "ms from when it was sent")
    for percentile, corrected, uncorrected in found.rows():
        table.add_row("longest" if percentile == 100 else f"{percentile:g}", f"{corrected:.2f}", f"{uncorrected:.2f}")  # noqa: PLR2004 - all of them
    Console().print(table)
    statuses = ", ".join(f"{count} x {latency.told(status)}" for status, count in found.statuses.items())
    log.say(f"{found.rps:.1f} right answers/s of {rate:g} asked for; answers: {statuses}")
    if found.late_ms > 5:  # noqa: PLR2004 - ms; below it nothing that matters is off
        warn(f"1 % of the requests left {found.late_ms:.1f} ms late or more: this machine cannot keep the rate")
    if plot is not None and found.corrected:
        from emberline.load.plot import plot as draw

        draw(found, plot, f"{model}: {rate:g} requests/s for {seconds:g} s")
        log.say(f"plot: {plot}")
    return 1 if found.num_failed else 0


def _check(rate: float, seconds: float, url: str, *, timeout_s: float, max_connections: int, seed: int) -> None:
    """Refuses options that no load can be made of."""
    from urllib.parse import urlsplit

    from emberline.client import check_url
    from emberline.errors import InvalidOption

    if not (0 < rate < math.inf and 0 < seconds < math.inf):
        got = f"{rate:g} and {seconds:g}"
        hint = "such as --rate 200 --seconds 30: requests a second, and for how long"
        raise InvalidOption("emberline load", "--rate and --seconds", got, "more than 0", hint=hint)
    check_url("load", "--url", url, hint="http://127.0.0.1:8080 is where `emberline up` has its router")
    if urlsplit(url).scheme == "https":
        raise InvalidOption("emberline load", "--url", url, "plain HTTP", hint="this load does not speak TLS")
    require_at_least(
        "load", ("--timeout-s", timeout_s, 0.001), ("--max-connections", max_connections, 1), ("--seed", seed, 0)
    )
    if not 1 <= rate * seconds <= _MOST_REQUESTS:
        got, hint = f"{rate:g} for {seconds:g} s", "requests a second; --seconds says for how long"
        raise InvalidOption("emberline load", "--rate", got, f"1 to {_MOST_REQUESTS:,} requests in all", hint=hint)
