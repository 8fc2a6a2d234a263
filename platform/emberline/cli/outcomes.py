"""`emberline outcomes`: what a warehouse knows of requests and units."""

from pathlib import Path


def outcomes(*files: Path, data: Path = Path("data"), new: bool = False) -> None:
    """Take outcomes from Parquet files, such as a warehouse exports; their unit ids are hashed on the way in.

    Taking a file again changes nothing. A file is taken whole, or refused with its first wrong row named.

    Args:
        files: Parquet files with the columns event_id, unit, metric, value, and request_id and time where known.
        data: Folder of exposures and outcomes, as a router keeps it.
        new: Make that folder, with a key of its own for unit ids, where no router has made it yet.
    """
    from emberline.errors import InvalidOption
    from emberline.exposure import KEY
    from emberline.route.warehouse import take_outcomes
    from emberline.runlog import RunLog

    if not files:
        hint = "emberline outcomes labels.parquet"
        raise InvalidOption("emberline outcomes", "files", None, "at least one Parquet file", hint=hint)
    twice = next(
        (path for index, path in enumerate(files) if path.resolve() in {f.resolve() for f in files[:index]}), None
    )
    if twice is not None:
        raise InvalidOption("outcomes", "files", str(twice), "each file once", hint="taking it again adds nothing")
    if not new and not (data / KEY).exists():
        hint = "another key would make strangers of its units; --new makes the folder before its router does"
        raise InvalidOption("outcomes", "--data", str(data), f"a router's folder, with {KEY} in it", hint=hint)
    log = RunLog()
    for path in files:
        log.say(f"{path}: {take_outcomes(path, data):,} outcomes taken")
