"""What a person declares in an experiment's file."""

from pydantic import ConfigDict

from emberline.paper import Frozen


class Declared(Frozen):
    """NaN and infinity, which YAML can write, are no number here: nothing could be compared with them."""

    model_config = ConfigDict(allow_inf_nan=False)
