"""Several artifacts in one archive, the lightest first: each in a folder of its own, with the rules between them."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson

from emberline.archive import contents
from emberline.artifact import DESCRIPTION, PROBE, Artifact, Probe, read_artifact, to_json
from emberline.cascade import FOLDER, Found, PassFound, fits, read_found
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
    found = _found(artifacts.parent, name, cascade, tuple(one.digest for _, one, _ in read))
    passes = cascade.passes if found is None else tuple(map(_with_rules, cascade.passes, found.passes))
    probes = [Probe.model_validate_json((source / PROBE).read_bytes()) for source, *_ in read]
    expected = probe(probes, passes, labelled=bool(last.labels))
    card_settings = settings.model_copy(update={"versions": {manifest.name: cascade.version}})
    told = {"name": name, "found": None if found is None else found.model_dump(mode="json")}
    contents.stage(folder, last_source, manifest, last, card_settings, cascade=told)
    for package in last.packages:
        (folder / package.file).unlink()
    (folder / DESCRIPTION).write_bytes(to_json(last.model_copy(update={"packages": ()})))
    (folder / PROBE).write_bytes(to_json(expected))
    for number, (source, _, described) in enumerate(read, start=1):
        place = folder / f"pass-{number}"
        place.mkdir()
        for file in (DESCRIPTION, PROBE, *(package.file for package in described.packages)):
            shutil.copyfile(source / file, place / file)
    rules = [{"folder": f"pass-{number}", **one.model_dump(mode="json")} for number, one in enumerate(passes, start=1)]
    content = {"cascade": name, "passes": rules}
    (folder / RULES).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return manifest, last


def _found(run: Path, name: str, cascade: Cascade, digests: tuple[str, ...]) -> Found | None:
    """What `emberline compress` found of this very cascade; None where it found nothing and nothing is to be tuned.

    Raises:
        MissingFile, EmberlineError: rules are to be tuned, and were not, or for other artifacts.
    """
    folder, tuned = run / FOLDER / name, any(one.is_tuned for one in cascade.passes)
    if not tuned and not folder.is_dir():
        return None
    found = read_found(run, name)
    if fits(found, cascade, digests):
        return found
    if tuned:
        raise EmberlineError(
            "its rules were tuned for other artifacts, or for another cascade", place=folder, hint="emberline compress"
        )
    return None


def _with_rules(one: Pass, found: PassFound) -> Pass:
    return one.model_copy(update={"keep": found.keep, "confidence": found.confidence})


def probe(probes: Sequence[Probe], passes: Sequence[Pass], *, labelled: bool) -> Probe:
    """What the whole cascade answers to the last pass's probe, as its handler decides it.

    Raises:
        EmberlineError: an earlier pass might answer it, and its own probe is another one, so nobody knows what.
    """
    last = probes[-1]
    for one, rule in zip(probes[:-1], passes[:-1], strict=True):
        if not isinstance(rule.confidence, float) or not labelled:
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
