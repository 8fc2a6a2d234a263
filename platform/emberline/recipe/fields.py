"""What the sections of a recipe are made of: the frozen mapping, and texts and numbers of a form that several share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_REFERENCE, _NAME, _VERSION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", r"^\d+(\.\d+)*$"
PATTERNS = {
    _REFERENCE: "module:function",
    _NAME: "a name of lower-case letters, digits and dashes",
    _VERSION: "a version such as 1.0",
}
"""What each asks for, in words."""
Reference = Annotated[str, Field(pattern=_REFERENCE)]
Name = Annotated[str, Field(pattern=_NAME, max_length=40)]
Version = Annotated[str, Field(pattern=_VERSION)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
