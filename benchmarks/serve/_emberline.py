"""`emberline serve` for a benchmark: started with given settings, waited for, stopped."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emberline import process


@contextmanager
def served(folder: Path, archives: Sequence[Path], keys: Path, **settings: object) -> Iterator[tuple[str, int]]:
    """Yields the inference address and the process whose tree does the work; the router is not part of it."""
    state = folder / f"state-{process.free_port()}"
    options: list[str | Path] = ["--keys", keys, "--state", state]
    options += [
        part for name in ("port", "management-port", "metrics-port", "health-port") for part in (f"--{name}", "0")
    ]
    options += [part for key, value in settings.items() for part in ("--set", f"serve.{key}={value}")]
    state.mkdir(parents=True)
    child = process.start(
        [sys.executable, "-m", "emberline.cli", "serve", *archives, *options],
        name="emberline serve",
        cwd=folder,
        env=dict(os.environ),
        log=state / "output",
    )
    try:

        def facts() -> dict[str, object] | None:
            assert child.poll() is None, (state / "output").read_text()
            path = state / "serve.json"
            return json.loads(path.read_text()) if path.is_file() else None

        found = process.wait_until(facts, 180, "emberline serve")
        yield str(found["inference"]), child.pid
    finally:
        child.stop(30)
