"""The report of a compression: `report.json` for programs, `report.html` for people, no network needed for either."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from emberline import storage
from emberline.artifact import Artifact, Measurement
from emberline.compress.chain import Done
from emberline.compress.gates import Outcome
from emberline.errors import StageFailed
from emberline.measure.session import Measured
from emberline.recipe import Recipe

_TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True)
class Entry:
    """One artifact in the report."""

    name: str
    stages: Sequence[Done]
    artifact: Artifact
    measured: Measured
    outcomes: tuple[Outcome, ...]
    failure: StageFailed | None

    @property
    def measurement(self) -> Measurement:
        if self.artifact.measurement is None:
            raise StageFailed("report", f"{self.name} was not measured")
        return self.artifact.measurement


def write_report(folder: Path, recipe: Recipe, entries: Mapping[str, Entry], recipe_path: Path) -> Path:
    """Writes both files; returns the page's path. Drawn anew only when its content changed."""
    content = _content(recipe, entries, recipe_path)
    page, data = folder / "report.html", folder / "report.json"
    if page.is_file() and data.is_file() and _same(orjson.loads(data.read_bytes()), content):
        return page
    from jinja2 import Environment, StrictUndefined

    from emberline.compress.waterfall import waterfall_svg

    before = {**content["artifacts"][content["baseline"]]["stages"][0], "stage": "trained"}
    svgs = {
        name: waterfall_svg([before, *entry["stages"]])
        for name, entry in content["artifacts"].items()
        if len(entry["stages"]) > 1
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(**content, svgs=svgs)
    storage.write_bytes(data, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    storage.write_bytes(page, html.encode())
    return page


def _content(recipe: Recipe, entries: Mapping[str, Entry], recipe_path: Path) -> dict[str, Any]:
    settings = recipe.compress
    return {
        "run": recipe.run,
        "recipe": recipe.digest,
        "command": f"emberline compress {recipe_path}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": next(iter(entries.values())).measurement.machine,
        "baseline": settings.baseline if settings else "",
        "batch_sizes": list(settings.batch_sizes) if settings else [],
        "threads": settings.threads if settings else 1,
        "artifacts": {name: _artifact(entry) for name, entry in entries.items()},
    }


def _artifact(entry: Entry) -> dict[str, Any]:
    stages = [
        {
            "stage": one.name,
            "seconds": round(one.seconds, 2),
            "accuracy": one.note["accuracy"],
            "parameters": one.note["parameters"],
            "weights_bytes": one.note["weights_bytes"],
            "note": {key: value for key, value in one.note.items() if key not in _SHOWN},
        }
        for one in entry.stages
    ]
    # the last stage is what was measured: the package itself, not the program it was made from
    stages[-1]["accuracy"] = entry.measurement.accuracy
    return {
        "backend": entry.measured.package["backend"],
        "precision": entry.measured.package["precision"],
        "published": entry.failure is None,
        "failure": str(entry.failure.fact) if entry.failure else None,
        "measurement": entry.measurement.model_dump(mode="json"),
        "packages": [package.model_dump(mode="json") for package in entry.artifact.packages],
        "gates": [{"gate": one.gate, "verdict": one.verdict, "text": one.text} for one in entry.outcomes],
        "stages": stages,
    }


_SHOWN = ("accuracy", "parameters", "weights_bytes", "seconds")


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return {**old, "created": ""} == {**orjson.loads(orjson.dumps(new)), "created": ""}
