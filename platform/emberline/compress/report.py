"""The report of a compression: `report.json` for programs, `report.html` for people, no network needed for either."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from emberline import storage
from emberline.compress.choice import correct_rows
from emberline.compress.entry import Entry
from emberline.compress.gates import paired_drop
from emberline.compress.target import absent_backends
from emberline.recipe import Compress, Export, Recipe

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_SHOWN = ("accuracy", "parameters", "weights_bytes", "seconds", "latency_ms")


def write_report(
    folder: Path,
    recipe: Recipe,
    entries: Mapping[str, Entry],
    *,
    command: str,
    runs: Path,
    tested: Mapping[str, list[float]],
    rows: Sequence[str] = (),
    made_by: Mapping[str, str] | None = None,
) -> Path:
    """Writes both files; returns the page's path. Drawn anew only when its content changed.

    Args:
        command: the line that makes all of it again.
        rows: the options by which `emberline measure` takes the same rows.
        made_by: the line that makes each artifact, by name, where they are points of a search and not published.
        tested: 1 or 0 for each test row, by artifact; what was not published was not tested.
    """
    content = {"command": command, **_content(recipe, entries, runs, tested, rows), "made_by": dict(made_by or {})}
    page, data = folder / "report.html", folder / "report.json"
    if page.is_file() and data.is_file() and _same(orjson.loads(data.read_bytes()), content):
        return page
    storage.write_bytes(data, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    storage.write_bytes(page, render(content).encode())
    return page


def render(content: dict[str, Any]) -> str:
    """The page of a report's content, as `report.json` holds it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(**content, drawings=_drawings(content))


def _drawings(content: dict[str, Any]) -> dict[str, Any]:
    from emberline.compress import drawings

    artifacts = content["artifacts"]
    before = {**artifacts[content["baseline"]]["stages"][0], "stage": "trained"}
    before["size_bytes"] = before["weights_bytes"]
    before["latency_ms"] = before["eager_ms"]
    points = [
        {
            "backend": package["backend"],
            "latency_ms": package["latencies"][0]["wall_ms"],
            "accuracy": package["accuracy"],
            "size_mb": package["size_bytes"] / 1e6,
            "chosen": package["chosen"],
        }
        for one in artifacts.values()
        for package in one["measurement"]["packages"]
    ]
    return {
        "pareto": drawings.pareto_svg(points, content["batch_sizes"][0]),
        "artifacts": {name: _drawings_of(one, before) for name, one in artifacts.items() if len(one["stages"]) > 1},
    }


def _drawings_of(one: dict[str, Any], before: dict[str, Any]) -> dict[str, str]:
    from emberline.compress import drawings

    found = {"waterfall": drawings.waterfall_svg([before, *one["stages"]])}
    for kind in ("quantize", "prune"):
        if one["analysis"][kind]:
            found[kind] = drawings.sensitivity_svg(one["analysis"][kind])
    if one["analysis"]["histograms"]:
        found["histograms"] = drawings.histograms_svg(one["analysis"]["histograms"])
    return found


def _content(
    recipe: Recipe, entries: Mapping[str, Entry], runs: Path, tested: Mapping[str, list[float]], rows: Sequence[str]
) -> dict[str, Any]:
    settings = recipe.compress
    baseline = settings.baseline if settings else ""
    batch_sizes = list(settings.batch_sizes) if settings else []
    threads = settings.threads if settings else 1
    sizes = " ".join(f"--batch-size {size}" for size in batch_sizes)
    artifacts = runs / recipe.run / "artifacts"
    lead = entries[baseline].measured.package["file"]
    measure = shlex.join(["emberline", "measure", *rows])
    return {
        "run": recipe.run,
        "recipe": recipe.digest,
        "measure": f"{measure} --threads {threads} {sizes} {artifacts / baseline / str(lead)}",
        "artifacts_folder": str(artifacts),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": next(iter(entries.values())).measurement.machine,
        "baseline": baseline,
        "batch_sizes": batch_sizes,
        "threads": threads,
        "absent": absent_backends() if settings and _wants_installed(settings) else {},
        "artifacts": {
            name: _artifact(
                entry, baseline, tested, None if name == baseline else correct_rows(entries[baseline].measured)
            )
            for name, entry in entries.items()
        },
    }


def _wants_installed(settings: Compress) -> bool:
    """Whether a recipe asks for all backends there are, so that those which are not here are missed."""
    stages = [stage for variant in settings.artifacts.values() for stage in variant.stages]
    return any(isinstance(stage, Export) and stage.backends == "installed" for stage in stages)


def _artifact(
    entry: Entry, baseline: str, tested: Mapping[str, list[float]], reference: NDArray[np.float64] | None
) -> dict[str, Any]:
    """One artifact's part of the report.

    Args:
        reference: 1 or 0 for each validation row as the baseline answered it; None for the baseline itself.
    """
    stages = [
        {
            "stage": one.name,
            "seconds": round(one.seconds, 2),
            "accuracy": one.note["accuracy"],
            "parameters": one.note["parameters"],
            "weights_bytes": one.note["weights_bytes"],
            "size_bytes": one.note["weights_bytes"],
            "latency_ms": one.note.get("latency_ms"),
            "eager_ms": one.note.get("latency_ms"),
            "note": {key: value for key, value in one.note.items() if key not in _SHOWN},
        }
        for one in entry.stages
    ]
    # the last stage is what was measured: the package itself, not the program it was made from
    measurement = entry.measurement
    stages[-1].update(
        accuracy=measurement.accuracy,
        latency_ms=measurement.latencies[0].wall_ms,
        size_bytes=measurement.size_bytes,
    )
    return {
        "backend": entry.measured.package["backend"],
        "precision": entry.measured.package["precision"],
        "published": entry.failure is None,
        "failure": str(entry.failure.fact) if entry.failure else None,
        "hint": entry.failure.hint if entry.failure else None,
        "tried": list(entry.tried),
        "measurement": measurement.model_dump(mode="json"),
        "drop_below": None if reference is None else paired_drop(reference, correct_rows(entry.measured)).upper,
        "packages": [package.model_dump(mode="json") for package in entry.artifact.packages],
        "gates": [{"gate": one.gate, "verdict": one.verdict, "text": one.text} for one in entry.outcomes],
        "stages": stages,
        "analysis": entry.analysis,
        "test": _test(entry.name, baseline, tested),
    }


def _test(name: str, baseline: str, tested: Mapping[str, list[float]]) -> dict[str, Any] | None:
    """Accuracy on the test rows, and the drop with its bound; None where there are none."""
    if name not in tested or baseline not in tested:
        return None
    correct, reference = np.asarray(tested[name], np.float64), np.asarray(tested[baseline], np.float64)
    paired = paired_drop(reference, correct)
    return {
        "rows": len(correct),
        "accuracy": float(correct.mean()),
        "drop": None if name == baseline else paired.drop,
        "drop_below": None if name == baseline else paired.upper,
    }


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return {**old, "created": ""} == {**orjson.loads(orjson.dumps(new)), "created": ""}
