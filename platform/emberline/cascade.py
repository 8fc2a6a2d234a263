"""What was found of a cascade on validation rows: its rules, how good its answers are, and what they cost.

A paper `runs/<run>/cascades/<name>/`, written by `emberline compress`; `emberline archive` takes tuned rules from it.
"""

from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from emberline.errors import CorruptPaper
from emberline.paper import Frozen, verify_paper
from emberline.recipe import Cascade

FOLDER, FOUND = "cascades", "found.json"

Measure = Literal["accuracy", "ndcg"]


class PassFound(Frozen):
    """One model of the cascade.

    Attributes:
        digest: of the artifact's manifest: the rules hold for that very one.
        reached: fraction of all rows that it looks at.
        cpu_us: its CPU time for each row that it looks at, as many together as come.
    """

    artifact: str
    digest: str
    keep: int | None = None
    confidence: float | None = None
    reached: float
    cpu_us: float


class Found(Frozen):
    """A cascade beside its last pass alone.

    Attributes:
        rows: validation rows behind `quality`; for rankings `requests` says how many lists they are.
        top: of rankings, how many of the first items count.
        quality: accuracy, or mean NDCG; `alone` is the last pass's, which looks at all rows then.
        test_quality: the same on test rows, which chose nothing; None where there are none.
        cpu_us: for one row, all passes together; the models alone, without what a server adds.
    """

    measure: Measure
    rows: int
    requests: int | None = None
    top: int | None = None
    quality: float
    alone: float
    test_quality: float | None = None
    test_alone: float | None = None
    cpu_us: float
    alone_cpu_us: float
    machine: str
    passes: tuple[PassFound, ...]


def read_found(run: Path, name: str) -> Found:
    """The verified paper of a cascade.

    Raises:
        MissingFile, CorruptPaper, NewerSchema: it is not there, or cannot be trusted.
    """
    folder = run / FOLDER / name
    verify_paper(folder, "report")
    try:
        return TypeAdapter(Found).validate_json((folder / FOUND).read_bytes())
    except ValidationError as error:
        raise CorruptPaper(folder / FOUND, "no account of a cascade", "one that can be read") from error


def fits(found: Found, cascade: Cascade, digests: tuple[str, ...]) -> bool:
    """Whether what was found is of these artifacts, and of the rules that the recipe gives itself."""
    if tuple(one.digest for one in found.passes) != digests:
        return False
    return all(
        wanted in ("tuned", got)
        for one, rule in zip(found.passes, cascade.passes, strict=True)
        for wanted, got in ((rule.keep, one.keep), (rule.confidence, one.confidence))
    )
