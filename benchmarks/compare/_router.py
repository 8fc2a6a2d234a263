"""`emberline route` as a process, a model server behind it, and clients that ask all the time.

`MUTANT` names a mistake that the router is started with, where a key has one: `salt_dropped`, `treatments_last`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx

sys.path.append(str(Path(__file__).parents[2] / "tests/route"))
from live_router import Load, RunningRouter, ask_all, write_experiment

from emberline import process
from emberline.experiment import Experiment

__all__ = ["Load", "Router", "ask_units", "router"]
_MUTANTS = {
    "": "",
    "salt_dropped": "import emberline.route.units as u; u._escaped = lambda salt: ''",
    "treatments_last": """
import emberline.route.routes as r
as_it_is = r._variants
def _variants(*given):
    action = as_it_is(*given)
    action["weighted_clusters"]["clusters"].reverse()
    return action
r._variants = _variants
""",
}


def ask_units(port: int, units: Sequence[str], connections: int = 8, more: str = "") -> list[dict[str, str]]:
    """Headers of the answers, in the order of the units; a status that is not 200 raises."""
    answers = ask_all(port, [(unit, b'{"n": 1}') for unit in units], connections, more)
    for unit, answer in zip(units, answers, strict=True):
        assert answer.status == 200, (answer.status, unit)
    return [answer.headers for answer in answers]


@dataclass
class Router(RunningRouter):
    """A running router of model `digits`, versions 1.0 (default) and 1.1, with its model server's port."""

    model_port: int = 0

    def program(self) -> list[str]:
        mutant = _MUTANTS[os.environ.get("MUTANT", "")]
        return [sys.executable, "-c", f"{mutant}\nfrom emberline.cli import main\nmain()"]

    def write(self, name: str, weight: int, revision: int = 0, **spec: Any) -> Experiment:
        """An experiment at a weight; revisions are told apart by their configuration version."""
        return write_experiment(self.experiments, weight, name=name, revision=revision, **spec)

    def await_config(self, experiment: Experiment) -> None:
        """Waits until every process of the router has the configuration."""

        def taken() -> bool:
            dumps = [httpx.get(f"{admin}/config_dump").text for admin in self.paper["admin"].split(",")]
            return all(experiment.config_version in dump for dump in dumps)

        process.wait_until(taken, 20, experiment.config_version, every_s=0.02)

    def request_ids(self) -> list[str]:
        """Of all live exposures, as often as they are there."""
        files = list((self.folder / "data/exposures").glob("part=*/*.parquet"))
        if not files:
            return []
        with duckdb.connect(":memory:") as connection:
            query = "SELECT request_id FROM read_parquet($1) WHERE NOT shadow"
            return [row[0] for row in connection.execute(query, [list(map(str, files))]).fetchall()]


@contextmanager
def router(folder: Path, *options: str, fails: str = "") -> Iterator[Router]:
    """A router that is not started yet, with its model server.

    Args:
        fails: VERSION=SHARE that the model server answers with 500.
    """
    command = [sys.executable, str(Path(__file__).with_name("_model.py")), *([fails] if fails else [])]
    model = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert model.stdout is not None
    port = int(model.stdout.readline())
    upstreams = [part for v in ("1.0", "1.1") for part in ("--upstream", f"digits@{v}=127.0.0.1:{port}")]
    made = Router(folder, [*upstreams, "--default", "digits=1.0", *options], model_port=port)
    try:
        yield made
    finally:
        made.stop()
        model.terminate()
        model.wait()
