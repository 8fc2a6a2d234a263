"""Any paper, as lines for a person."""

import zipfile
from pathlib import Path
from typing import Any

from emberline.errors import EmberlineError, MissingFile
from emberline.paper import MANIFEST, Manifest, verify_paper

_EXPERIMENT = "Experiment"


def describe(path: Path, keys: Path) -> list[str]:
    """Lines for the paper at a path.

    Raises:
        MissingFile: there is nothing at that path.
        CorruptPaper: a file is not what the manifest says.
        EmberlineError: it is no paper.
    """
    if (path / MANIFEST).is_file():
        return _manifest_lines(path, verify_paper(path))
    if path.suffix == ".mar" and path.is_file():
        return _archive_lines(path, keys)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return _yaml_lines(path)
    if not path.exists():
        raise MissingFile(path, "the paper", hint="runs/, store/ and recipes/ hold papers")
    below = sorted(str(found.parent) for found in path.glob("**/" + MANIFEST)) if path.is_dir() else []
    hint = f"papers below: {', '.join(below[:8])}" if below else f"a paper is a folder with {MANIFEST}, or a .mar"
    raise EmberlineError("this is no paper", place=path, hint=hint)


def _manifest_lines(path: Path, manifest: Manifest) -> list[str]:
    lines = [
        f"{manifest.kind} {manifest.name}  (verified: {len(manifest.files)} files match their hashes)",
        f"  path     {path}",
        f"  created  {manifest.created} by {manifest.code}",
        f"  digest   {manifest.digest}",
        f"  recipe   {manifest.recipe or 'none'}",
        f"  seed     {'none' if manifest.seed is None else manifest.seed}",
        *_facts(manifest.facts),
        "  files",
        *(f"    {name}  {entry.size_bytes} bytes  xxh3 {entry.xxh3}" for name, entry in sorted(manifest.files.items())),
    ]
    return [*lines, *_lineage(manifest)]


def _lineage(manifest: Manifest) -> list[str]:
    if not manifest.lineage:
        return ["  lineage  starts here"]
    return ["  lineage", *(f"    from {step.kind} {step.name}  {step.digest}" for step in manifest.lineage)]


def _facts(facts: dict[str, Any]) -> list[str]:
    return [f"  {key}  {value}" for key, value in facts.items()]


def _signature(path: Path, keys: Path) -> str:
    """Whose signature an archive has.

    Raises:
        AlteredArchive, AlteredSignature, WrongKey: it has one that does not hold.
    """
    from emberline import signing

    public = keys / signing.PUBLIC_KEY
    if not public.is_file():
        return f"not checked: {public} is not there"
    try:
        return f"by key {signing.verify(path, public)[:16]}"
    except signing.UnsignedArchive:
        return "NO: serve refuses it"


def _archive_lines(path: Path, keys: Path) -> list[str]:
    from emberline.archivefile import read_archive

    if not zipfile.is_zipfile(path):
        raise EmberlineError("this is no archive: not a zip file", place=path, hint="emberline archive makes archives")
    info = read_archive(path)
    lines = [f"archive {info.model} {info.version}", f"  path     {path}", f"  signed   {_signature(path, keys)}"]
    if info.artifact is None or info.lineage is None:
        return [*lines, "  made by another tool: no artifact, no lineage"]
    packages = [f"    {p.backend} {p.precision} up to {p.max_batch} rows  {p.file}" for p in info.artifact.packages]
    lines += ["  packages, in the order they are tried", *packages]
    measured = info.artifact.measurement
    if measured is not None:
        lines.append(f"  accuracy {measured.accuracy:.4f} on {measured.rows} validation rows")
        lines += [f"  warning  {warning}" for warning in measured.warnings]
    head = info.lineage.as_ancestor()
    return [*lines, f"  artifact {head.name}  {head.digest}", *_lineage(info.lineage)]


def _yaml_lines(path: Path) -> list[str]:
    from emberline.experiment import load_experiment
    from emberline.recipe import load_recipe, read_yaml

    if read_yaml(path).get("kind") == _EXPERIMENT:
        experiment = load_experiment(path)
        spec = experiment.spec
        return [
            f"experiment {experiment.name} on model {spec.model}",
            *(f"  variant  {v.name} {v.version}{' (control)' if v.control else ''}" for v in spec.variants),
            *(f"  step {i}   {step.model_dump(exclude_none=True)}" for i, step in enumerate(spec.ramp, start=1)),
            f"  status   {experiment.progress}: {experiment.weights_text}",
            f"  digest   {experiment.spec_digest}",
        ]
    recipe = load_recipe(path)
    sections = recipe.model_dump(mode="json", exclude_defaults=True)
    return [f"recipe of run {recipe.run}", *_facts(sections), f"  digest   {recipe.digest}"]
