"""Closed-loop load by wrk, and what it cost the server."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "%s"
local file = io.open("%s", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%.3f, "p50_ms": %%.3f, "p99_ms": %%.3f, "status": %%d, "failed": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """One run of wrk.

    Attributes:
        cpu_us: CPU of the server's whole process tree a request.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def drive(
    url: str, body: Path, connections: int, seconds: float, pid: int, *, content_type: str = "application/json"
) -> Load:
    """Loads `url` with `connections` connections; raises when any answer was an error: it would be no throughput."""
    script = body.with_suffix(".lua")
    script.write_text(_SCRIPT % (content_type, body))
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(script), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = cpu_seconds(pid)
    facts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    if facts["status"] or facts["failed"] or not facts["requests"]:
        raise RuntimeError(f"{url} answered with errors: {done.stdout}")
    cpu = 1e6 * (after - before) / facts["requests"]
    return Load(facts["requests"] / facts["seconds"], facts["p50_ms"], facts["p99_ms"], cpu)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it that live."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for one in tree:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
