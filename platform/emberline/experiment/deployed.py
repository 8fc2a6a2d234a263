"""The file `<model>.deployed.json`: which version answers where no experiment decides."""

from pathlib import Path

import orjson

from emberline.errors import InvalidSetting
from emberline.paper import Frozen
from emberline.recipe import Name, Version, parse_model


class Deployed(Frozen):
    """The version that answers where no experiment decides, as rollout has put it in force without one.

    Attributes:
        previous: what answered before; it is drained and let go.
        since: Unix time; experiments that ended earlier decide no more.
        asked: Unix time of the request; each is carried out once, and the same one asked again is another.
    """

    model: Name
    version: Version
    previous: str = ""
    since: float
    reason: str
    asked: float = 0.0


def deployed_path(folder: Path, model: str) -> Path:
    return folder / f"{model}.deployed.json"


def load_deployed(path: Path) -> Deployed:
    """Reads a `<model>.deployed.json`.

    Raises:
        InvalidSetting: it is none.
    """
    try:
        raw = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(path, "the file", "no JSON", "a deployment as rollout writes it") from error
    return parse_model(Deployed, raw, path)
