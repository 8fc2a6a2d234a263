"""`emberline measure`: latency and size of artifacts side by side."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def measure(
    artifacts: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    rounds: int = 40,
    batch_size: Annotated[tuple[int, ...], Parameter(negative="")] = (1, 32),
    threads: int = 1,
) -> None:
    """Measure artifacts side by side, in interleaved rounds, each on its own probe.

    Args:
        artifacts: Folders of artifacts; the first one is what the others are compared with.
        rounds: Rounds; each times every artifact once.
        batch_size: Rows of a batch; repeat the option for several.
        threads: Threads per batch.
    """
    from emberline.errors import InvalidSetting
    from emberline.measure.artifacts import measure_artifacts

    for option, values in (("--rounds", (rounds,)), ("--batch-size", batch_size), ("--threads", (threads,))):
        if min(values) < 1:
            raise InvalidSetting(option, "value", min(values), "1 or more")
    measure_artifacts(artifacts, rounds=rounds, batch_sizes=batch_size, threads=threads)
