"""How much a teacher's answers count, in training and in the distill stage alike."""

from pydantic import Field, model_validator

from emberline.recipe.fields import Section


class Teaching(Section):
    """How much a teacher's answers count beside the labels."""

    temperature: float = Field(default=4.0, gt=0)
    soft: float = Field(default=0.7, ge=0)
    """Weight of the divergence from the teacher's softened answers."""
    hard: float = Field(default=0.3, ge=0)
    """Weight of the recipe's own loss on the labels."""


class Distillation(Teaching):
    """Training from the start by what a teacher answers, beside what the labels say."""

    teacher: str | None = None
    """Folder of the artifact that teaches, from the working directory; it answers at each step."""
    recorded: str | None = None
    """Parquet file written by `emberline record`, in place of a teacher that runs beside the student."""

    @model_validator(mode="after")
    def _one_teacher(self) -> "Distillation":
        if (self.teacher is None) == (self.recorded is None):
            raise ValueError("name one teacher: either teacher, a folder, or recorded, a file of its answers")
        if self.soft == 0:
            raise ValueError("soft is 0, so the teacher has no say; leave distill out")
        return self
