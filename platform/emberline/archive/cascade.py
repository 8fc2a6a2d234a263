"""Several artifacts in one archive, the lightest first: each in a folder of its own, with the rules between them."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson

from emberline.archive import contents
from emberline.artifact import DESCRIPTION, PROBE, Artifact, Probe, read_artifact, to_json
from emberline.errors import EmberlineError, MissingFile
from emberline.paper import Manifest
from emberline.recipe import Archive, Cascade, Pass

RULES = "cascade.json"


def stage(folder: Path, artifacts: Path, name: str, cascade: Cascade, settings: Archive) -> tuple[Manifest, Artifact]:
    """Puts all files but the handler's own into `folder`; returns the papers of the last pass, which the archive bears.

    Args:
        artifacts: folder of the run's artifacts.
        name: the cascade's, which its errors and its card bear.

    Raises:
        EmberlineError: an artifact is missing or cannot be served, or its inputs or labels are not those of the others.
    """
    read = []
    for one in cascade.passes:
        source = artifacts / one.artifact
        if not source.is_dir():
            raise MissingFile(source, f"an artifact of the cascade {name}", hint="emberline compress makes artifacts")
        read.append((source, *read_artifact(source)))
        contents.check_servable(source, read[-1][2])
    first, (last_source, manifest, last) = read[0][2], read[-1]
    for source, _, described in read:
        if described.preprocessing.inputs != first.preprocessing.inputs or described.labels != first.labels:
            raise EmberlineError(
                f"takes other inputs or has other labels than {read[0][0].name}, so they cannot be one cascade",
                place=source,
            )
    probes = [Probe.model_validate_json((source / PROBE).read_bytes()) for source, *_ in read]
    expected = probe(probes, cascade.passes, labelled=bool(last.labels))
    card_settings = settings.model_copy(update={"versions": {manifest.name: cascade.version}})
    contents.stage(folder, last_source, manifest, last, card_settings)
    for package in last.packages:
        (folder / package.file).unlink()
    (folder / DESCRIPTION).write_bytes(to_json(last.model_copy(update={"packages": ()})))
    (folder / PROBE).write_bytes(to_json(expected))
    for number, (source, _, described) in enumerate(read, start=1):
        place = folder / f"pass-{number}"
        place.mkdir()
        for file in (DESCRIPTION, PROBE, *(package.file for package in described.packages)):
            shutil.copyfile(source / file, place / file)
    rules = [
        {"folder": f"pass-{number}", **one.model_dump(mode="json")}
        for number, one in enumerate(cascade.passes, start=1)
    ]
    content = {"cascade": name, "passes": rules}
    (folder / RULES).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return manifest, last


def probe(probes: Sequence[Probe], passes: Sequence[Pass], *, labelled: bool) -> Probe:
    """What the whole cascade answers to the last pass's probe, as its handler decides it.

    Raises:
        EmberlineError: an earlier pass might answer it, and its own probe is another one, so nobody knows what.
    """
    last = probes[-1]
    for one, rule in zip(probes[:-1], passes[:-1], strict=True):
        if rule.confidence is None or not labelled:
            continue  # a lone row goes on to the last pass unless a confident one stops it
        if one.instance != last.instance:
            raise EmberlineError(
                f"its probe is another one than that of {passes[-1].artifact}",
                place=rule.artifact,
                hint="make both artifacts by one run of emberline compress",
            )
        confidence = max(_softmax(one.expected))
        if abs(confidence - rule.confidence) <= one.tolerance:
            raise EmberlineError(
                f"answers the probe with confidence {confidence:.4f}, too close to its rule of {rule.confidence:g}",
                place=rule.artifact,
                hint="choose another confidence",
            )
        if confidence >= rule.confidence:
            return one
    return last


def _softmax(values: Sequence[float]) -> list[float]:
    exponents = [math.exp(value - max(values)) for value in values]
    return [exponent / sum(exponents) for exponent in exponents]
