"""Any paper, as lines for a person."""

import zipfile
from pathlib import Path
from typing import Any

import yaml

from emberline.errors import EmberlineError, MissingFile
from emberline.paper import MANIFEST, Manifest, verify_paper

_EXPERIMENT = "Experiment"


def describe(path: Path, keys: Path) -> list[str]:
    """Lines for the paper at a path.

    Raises:
        MissingFile: there is nothing at that path.
        CorruptPaper: a file is not what the manifest says, or not named by it.
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
    if path.is_dir() and (archives := sorted(path.glob("*.mar"))):
        return _store_lines(path, archives, keys)
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
    return [*lines, *(_run_of(path, manifest) or _lineage(manifest))]


def _run_of(path: Path, manifest: Manifest) -> list[str]:
    """Of a checkpoint, the run in whose folder it is; a run has a digest of its own only when it has ended."""
    from emberline.train.folder import training_in

    run = path.resolve().parents[1]
    if manifest.kind != "checkpoint" or training_in(run) != manifest.recipe:
        return []
    return ["  lineage", f"    from run {run.name}  (training {manifest.recipe})"]


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


def _store_lines(path: Path, archives: list[Path], keys: Path) -> list[str]:
    """Each archive of a store in one line."""
    from emberline.archivefile import read_archive

    infos = [(one.name, read_archive(one), _signature(one, keys)) for one in archives]
    lines = [f"  {name}  {info.model} {info.version}  signed {signed}" for name, info, signed in infos]
    return [f"store {path}: {len(lines)} archive{'' if len(lines) == 1 else 's'}", *lines]


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

    raw = read_yaml(path)
    if raw.get("kind") == _EXPERIMENT:
        experiment = load_experiment(path)
        spec = experiment.spec
        return [
            f"experiment {experiment.name} on model {spec.model}",
            *(f"  variant  {v.name} {v.version}{' (control)' if v.control else ''}" for v in spec.variants),
            *(f"  step {i}   {step.model_dump(exclude_none=True)}" for i, step in enumerate(spec.ramp, start=1)),
            f"  status   {experiment.progress}: {experiment.weights_text}",
            f"  digest   {experiment.spec_digest}",
            *([f"  warning  {experiment.upset}"] if experiment.upset else []),
        ]
    recipe = load_recipe(path)
    said = yaml.safe_dump(raw, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100).splitlines()
    return [
        f"recipe of run {recipe.run}: what it says, without its comments; all else has its default",
        *(f"  {line}" for line in said),
        f"  digest   {recipe.digest}",
    ]
