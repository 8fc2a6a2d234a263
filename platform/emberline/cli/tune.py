"""`emberline tune`: how many workers and threads, and what batches, by measurement."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe, require_at_least

Several = Annotated[tuple[int, ...], Parameter(negative="")]


def tune(
    artifact: str,
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    p99_ms: float | None = None,
    connections: int = 64,
    seconds: float = 5.0,
    workers: Several = (),
    threads: Several = (1,),
    batch_size: Several = (8, 32),
    delay_ms: Several = (0, 1),
    runs: Path = Path("runs"),
    store: Path = Path("store"),
    keys: Path = Path("keys"),
) -> None:
    """Measure an artifact served in every combination of settings, and write the best into it; archive it anew.

    Best is the most requests a second with no failure and the 99th percentile within --p99-ms. Every combination is
    served alone, on this machine, under load from this machine: run nothing else meanwhile.

    Args:
        artifact: Name of the artifact, such as int8.
        recipe: The recipe whose `archive` section gives it a version, and whose `serve` section is measured with.
        p99_ms: Longest 99th percentile of the latency allowed; without it throughput alone decides.
        connections: Clients at a time, each sending its next request when it has its answer.
        seconds: Of load for each combination, after a warm-up of two.
        workers: Numbers of workers to try; repeat the option for several, here and below. Default: 1 and all cores.
        threads: Threads of each worker. A package that was compiled for another number keeps its own.
        batch_size: Most requests a worker takes at once.
        delay_ms: Longest wait for a batch to fill; 0 takes what waits.
        runs: Folder of the runs.
        store: Folder the archive goes to.
        keys: Folder of the key pair to sign with; made when there is none.
    """
    import os

    from emberline import signing
    from emberline.errors import InvalidSetting
    from emberline.recipe import load_recipe
    from emberline.runlog import RunLog
    from emberline.tune.grid import candidates
    from emberline.tune.run import tune as measure

    require_at_least(
        "tune",
        ("--p99-ms", p99_ms if p99_ms is not None else 1, 0.001),
        ("--connections", connections, 1),
        ("--seconds", seconds, 0.001),
        *(("--workers", one, 1) for one in workers),
        *(("--threads", one, 1) for one in threads),
        *(("--batch-size", one, 1) for one in batch_size),
        *(("--delay-ms", one, 0) for one in delay_ms),
    )
    cores = len(os.sched_getaffinity(0))
    path = find_recipe(recipe)
    loaded = load_recipe(path, settings)
    if loaded.archive is None:
        hint = "recipes/digits.yaml has one"
        raise InvalidSetting(path, "archive", None, "a section that gives the artifact a version", hint=hint)
    grid = candidates(workers or sorted({1, cores}), threads, batch_size, delay_ms, cores)
    say = RunLog().say
    measure(
        runs / loaded.run / "artifacts" / artifact,
        loaded.archive,
        path,
        overrides=settings,
        grid=grid,
        connections=connections,
        p99_ms=p99_ms,
        seconds=seconds,
        store=store,
        keys=signing.ensure_keys(keys, say),
        say=say,
    )
