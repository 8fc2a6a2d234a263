"""`emberline outcomes`: what a warehouse knows of requests and units."""

from pathlib import Path


def outcomes(*files: Path, data: Path = Path("data")) -> None:
    """Take outcomes from Parquet files, such as a warehouse exports; their unit ids are hashed on the way in.

    Taking a file again changes nothing. A file is taken whole, or refused with its first wrong row named.

    Args:
        files: Parquet files with the columns event_id, unit, metric, value, and request_id and time where known.
        data: Folder of exposures and outcomes.
    """
    from emberline.errors import InvalidOption
    from emberline.route.warehouse import take_outcomes
    from emberline.runlog import RunLog

    if not files:
        hint = "emberline outcomes labels.parquet"
        raise InvalidOption("emberline outcomes", "files", None, "at least one Parquet file", hint=hint)
    log = RunLog()
    for path in files:
        log.say(f"{path}: {take_outcomes(path, data):,} outcomes taken")
