"""What a search leaves: a recipe for each point of the front, `front.json` for programs, a table. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson
import yaml
from rich.console import Console
from rich.table import Table

from emberline import storage
from emberline.compress.search.select import Evaluated
from emberline.compress.search.sought import Sought
from emberline.recipe import lay_over


def point_name(one: Evaluated, evaluated: Sequence[Evaluated]) -> str:
    """By the order of evaluation, which more evaluations do not change."""
    keys = [other.candidate.key for other in evaluated]
    return f"point-{keys.index(one.candidate.key) + 1}"


def write_points(
    sought: Sought,
    folder: Path,
    front: Sequence[Evaluated],
    evaluated: Sequence[Evaluated],
    *,
    settings: Sequence[str],
    command: str,
) -> dict[str, Path]:
    """A recipe for each point, beside the one that was searched, where the user's modules are; returns their paths.

    Args:
        folder: where `front.json` goes.
        settings: what was laid over the recipe; its points hold it.

    Each is the searched recipe with other stages for the one artifact, so every later verb takes it as it is.
    """
    path = sought.job.path
    written: dict[str, Path] = {}
    for one in front:
        name, costs = point_name(one, evaluated), one.costs
        assert costs is not None  # noqa: S101 - what is on the front was measured
        raw = lay_over(path, tuple(settings))
        raw["compress"].pop("search", None)
        artifact = raw["compress"]["artifacts"][sought.name]
        artifact.pop("fallbacks", None)
        artifact["stages"] = [
            stage.model_dump(mode="json", exclude_unset=True) for stage in sought.stages(one.candidate)
        ]
        memory = "" if costs.memory_mb is None else f", {costs.memory_mb:.0f} MB at the peak"
        head = (
            f"# {name} of `{command}`: {one.candidate.key}.\n"
            f"# Accuracy {costs.accuracy:.2%} on the validation rows, {costs.latency_ms:.3f} ms (geometric mean over "
            f"batch sizes), {costs.size_mb:.2f} MB{memory}.\n"
        )
        text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)
        written[name] = path.with_name(f"{path.stem}.{name}.yaml")
        storage.write_bytes(written[name], (head + text).encode())
    points = [
        {
            "name": point_name(one, evaluated),
            "candidate": one.candidate,
            "costs": one.costs,
            "recipe": str(written[point_name(one, evaluated)]),
        }
        for one in front
    ]
    accepted = sum(one.failure is None for one in evaluated)
    content = {
        "command": command,
        "evaluations": len(evaluated),
        "accepted": accepted,
        "evaluations_per_accepted": len(evaluated) / accepted,
        "front": points,
        "evaluated": [{"candidate": one.candidate, "costs": one.costs, "failure": one.failure} for one in evaluated],
    }
    storage.write_bytes(
        folder / "front.json", orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    return written


def print_front(
    front: Sequence[Evaluated],
    evaluated: Sequence[Evaluated],
    written: Mapping[str, Path],
    *,
    looks: int,
    console: Console,
) -> None:
    """One line a point, the fastest first."""
    accepted = sum(one.failure is None for one in evaluated)
    table = Table(
        title=f"{looks} nets looked at, {len(evaluated)} candidates evaluated, {accepted} accepted; unbeaten are",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("made by emberline compress", overflow="fold")
    for column in ("accuracy", "ms", "MB", "peak MB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for one in front:
        costs = one.costs
        assert costs is not None  # noqa: S101 - what is on the front was measured
        peak = "-" if costs.memory_mb is None else f"{costs.memory_mb:.0f}"
        table.add_row(
            str(written[point_name(one, evaluated)]), f"{costs.accuracy:.2%}", f"{costs.latency_ms:.3f}",
            f"{costs.size_mb:.2f}", peak, one.candidate.key,
        )  # fmt: skip
    console.print(table)
