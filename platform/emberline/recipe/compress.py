"""Which artifacts are made of a trained model, by which stages, and what they must hold to."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emberline.recipe.fields import Name, Section
from emberline.recipe.stages import Export, Prune, Quantize, Stage


class Gates(Section):
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    """A fraction, 0.005 for half a point, decided by a confidence bound over the validation rows."""
    min_speedup: float | None = Field(default=None, gt=0)
    """Over the baseline, at the first of the batch sizes."""
    max_size_mb: float | None = Field(default=None, gt=0)
    max_memory_mb: float | None = Field(default=None, gt=0)
    """Peak of a process that loads the package and answers the largest batch size, PyTorch itself included."""
    on_slower: Literal["warn", "refuse"] = "warn"
    """What happens to a candidate over 2 % slower than the baseline; `warn` keeps it and says so in every paper."""


class Variant(Section):
    stages: tuple[Stage, ...]
    gates: Gates = Gates()
    fallbacks: tuple[tuple[Stage, ...], ...] = ()
    """Other stages to try, in this order, when a gate or a stage fails; what they share with those before is reused."""

    @property
    def export(self) -> Export:
        """The stage that makes the packages: each artifact has one."""
        return next(stage for stage in self.stages if isinstance(stage, Export))


class Search(Section):
    """What `emberline compress --search` may change of one artifact, and how much work it may cost."""

    artifact: Name | None = None
    """The artifact whose stages are sought, under its own gates; where there is only one it need not be named."""
    arguments: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Choices for arguments of the model's factory, its width or depth; another net is the trained one's student."""
    prune: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.0, 0.25, 0.5)
    """Ratios of channels to remove."""
    round_to: int = Field(default=8, ge=1)
    precisions: Annotated[tuple[Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic"], ...], Field(min_length=1)] = (
        "fp32",
        "int8",
    )
    distill: Annotated[tuple[bool, ...], Field(min_length=1)] = (False, True)
    """Whether the trained net teaches a pruned one as well; a student is always taught by it."""
    epochs: int = Field(default=10, ge=1)
    """Of a student's training."""
    repair_epochs: int = Field(default=4, ge=1)
    """Of training after pruning."""
    learning_rate: float = Field(default=1e-3, gt=0)
    trials: int = Field(default=24, ge=1)
    """Nets that are looked at cheaply: trained for `proxy_epochs`, neither compiled nor timed."""
    proxy_epochs: int = Field(default=1, ge=1)
    evaluations: int = Field(default=8, ge=1)
    """Nets that are trained, compiled, timed and held to the gates in full."""


class Compress(Section):
    baseline: Name = "fp32"
    """The artifact that the others are measured against."""
    artifacts: dict[Name, Variant]
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 32)
    """Batch sizes to be served: latency is measured and outputs are compared at each."""
    threads: int = Field(default=1, ge=1)
    int8_for: Literal["this-cpu", "any-cpu"] = "this-cpu"
    """`any-cpu` calibrates to 7 bits where this CPU has VNNI too, so that CPUs without it can load the packages."""
    search: Search | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    """What packages are made for and measured on: `cuda` compiles for the compute capability of this GPU alone."""

    @model_validator(mode="after")
    def _stages_fit_the_device(self) -> "Compress":
        for name, variant in self.artifacts.items():
            for stage in (*variant.stages, *(stage for stages in variant.fallbacks for stage in stages)):
                wrong = _unfit_for(self.device, stage)
                if wrong:
                    raise ValueError(f"artifacts.{name}: {wrong}")
        if self.device == "cuda" and self.search is not None and "int8" in self.search.precisions:
            names = "fp32, bf16, fp16 and int8_dynamic"
            raise ValueError(f"search.precisions has int8, which is for the CPU alone; device cuda takes {names}")
        return self

    @model_validator(mode="after")
    def _baseline_is_there(self) -> "Compress":
        if self.baseline not in self.artifacts:
            raise ValueError(f"baseline {self.baseline!r} is none of the artifacts {sorted(self.artifacts)}")
        if self.artifacts[self.baseline].fallbacks:
            raise ValueError(f"baseline {self.baseline!r} has fallbacks; what the others are held against is one thing")
        return self

    @model_validator(mode="after")
    def _searched_artifact_is_there(self) -> "Compress":
        if self.search is not None:
            others = sorted(set(self.artifacts) - {self.baseline})
            if self.search.artifact is None and len(others) != 1:
                raise ValueError(f"search.artifact is absent and there are {others}; name the one to be sought")
            if self.search.artifact is not None and self.search.artifact not in others:
                raise ValueError(f"search.artifact {self.search.artifact!r} is none of {others}")
        return self

    @property
    def sought(self) -> str:
        """The artifact whose stages a search walks."""
        given = self.search.artifact if self.search else None
        return given or next(name for name in self.artifacts if name != self.baseline)


def _unfit_for(device: str, stage: Stage) -> str | None:
    """Why a stage cannot be for a device, or None."""
    if isinstance(stage, Quantize) and device == "cuda" and stage.precision in ("int8", "int8_embeddings"):
        return f"precision {stage.precision} is for the CPU alone; device cuda takes int8_dynamic, fp8, bf16 and fp16"
    if isinstance(stage, Quantize) and device == "cpu" and stage.precision == "fp8":
        return "precision fp8 is for GPUs alone; set device: cuda"
    if isinstance(stage, Quantize) and device == "cuda" and stage.smooth is not None:
        return "smooth does nothing with device cuda; leave it out"
    if isinstance(stage, Prune) and device == "cuda" and stage.round_to == "measured":
        return "round_to: measured times on the CPU; give it a number for device cuda, 8 say"
    if isinstance(stage, Export) and stage.backends != "installed":
        wrong = [one for one in stage.backends if (one == "aoti-cuda") != (device == "cuda")]
        if wrong:
            return f"backend {wrong[0]} is not for device {device}"
    return None
