"""How the model is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emberline.errors import InvalidSetting
from emberline.recipe.fields import Reference, Section
from emberline.recipe.teaching import Distillation

Task = Literal["classification", "ranking", "detection", "segmentation"]
METRICS: dict[Task, str] = {
    "classification": "accuracy",
    "ranking": "ndcg",
    "detection": "map50",
    "segmentation": "mean_iou",
}
"""What each task is judged by; the more the better."""
PICTURE_TASKS: tuple[Task, ...] = ("detection", "segmentation")
"""Tasks whose labels are places in a picture."""
_LOSSES = {
    "ranking": "emberline.models.losses:ndcg",
    "detection": "emberline.models.detection_loss:detection",
    "segmentation": "emberline.models.losses:pixels",
}


class Optimizer(Section):
    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    at_batch_size: int | None = Field(default=None, ge=1)
    """Rows of the step that learning_rate is meant for: `train.batch_size: auto` scales the rate from there."""


class EarlyStopping(Section):
    """Ends training when validation has not improved for a while, and goes back to the best weights."""

    metric: Literal["accuracy", "ndcg", "map50", "mean_iou", "loss"] = "accuracy"
    """Of the validation rows, after each epoch; `ndcg` of a ranking, `map50` of detection, `mean_iou` of
    segmentation."""
    patience: int | None = Field(default=3, ge=1)
    """Epochs in a row without improvement after which training ends; null never ends it, and keeps the best alone."""
    min_delta: float = Field(default=0.0, ge=0)
    """A smaller change is no improvement."""


class Train(Section):
    task: Task = "classification"
    """`ranking` learns the order of the rows of one group, which the data's `groups` tell; the score of a row is the
    model's last output. `detection` learns boxes of objects, `segmentation` the class of each pixel."""
    top: int = Field(default=10, ge=1)
    """Of a ranking: how many of the first items count in its metric, NDCG."""
    epochs: int = Field(default=10, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64
    """Rows of one batch over all workers, of a ranking groups of rows; must be a multiple of `virtual_shards`. `auto`
    is the largest that fits into memory, found once and written down in the run."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step of the optimizer."""
    virtual_shards: int = Field(default=4, ge=1)
    """A batch is always computed as this many pieces, whatever the number of workers."""
    strategy: Literal["replicate", "fsdp2"] = "replicate"
    """`fsdp2` divides weights and optimizer among the workers, for models that one device cannot hold."""
    reduce: Literal["virtual", "ddp"] = "virtual"
    """`ddp` is faster, and its result depends on the number of workers."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of autocast; weights stay float32, and float16 scales the loss."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is evaluated and kept."""
    early_stopping: EarlyStopping | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    loss: Reference = "emberline.models.losses:cross_entropy"
    """If not given, of a ranking `emberline.models.losses:ndcg`, of detection
    `emberline.models.detection_loss:detection`, of segmentation `emberline.models.losses:pixels`."""
    distill: Distillation | None = None
    augment: Reference | None = None
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Where the run's numbers are sent besides its log; each needs the extra of its name."""
    checkpoint_every_s: float = Field(default=30.0, gt=0)
    snapshot_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Steps between copies of the state in shared memory; `auto` keeps their cost under 1 % of the time."""
    keep_checkpoints: int = Field(default=3, ge=2)
    checkpoints: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9+.-]*://.+")
    """URL of a folder in an object store (`s3://bucket/runs`), where each run has a folder; else the run's own."""
    max_restarts: int = Field(default=20, ge=0)
    hang_after_s: Annotated[float, Field(gt=0)] | Literal["auto", "never"] = "auto"
    """A worker without progress for this long, or for a few times the median step if that is longer, is replaced."""
    threads: int = Field(default=1, ge=1)
    """Threads per worker; part of what makes results equal bit for bit."""

    def checkpoints_of(self, run: str) -> str | None:
        """Where a run's checkpoints lie, if not in its own folder."""
        return None if self.checkpoints is None else f"{self.checkpoints.rstrip('/')}/{run}"

    @property
    def rows_per_batch(self) -> int:
        """The batch size, once it is known."""
        if self.batch_size == "auto":
            raise InvalidSetting(
                "train", "batch_size", "auto", "a number",
                hint="training chooses it: take the number from the run's manifest, or train first",
            )  # fmt: skip
        return self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _losses_of_tasks(cls, given: Any) -> Any:
        """A task's own loss, where none is named."""
        own = _LOSSES.get(str(given.get("task"))) if isinstance(given, dict) else None
        return given if own is None or "loss" in given else {**given, "loss": own}

    @model_validator(mode="after")
    def _whole_shards(self) -> "Train":
        uneven = self.batch_size != "auto" and self.batch_size % self.virtual_shards
        if uneven and self.strategy == "replicate":
            raise ValueError(f"batch_size {self.batch_size} is no multiple of virtual_shards {self.virtual_shards}")
        if (self.batch_size == "auto") != (self.optimizer.at_batch_size is not None):
            raise ValueError(
                "batch_size: auto and optimizer.at_batch_size go together: the rate is scaled from the one to the other"
            )
        return self

    @model_validator(mode="after")
    def _metric_of_the_task(self) -> "Train":
        metric = None if self.early_stopping is None else self.early_stopping.metric
        if metric not in (None, "loss", METRICS[self.task]):
            raise ValueError(f"early_stopping.metric {metric} is none of task {self.task}; set it")
        if self.task != "ranking" and "top" in self.model_fields_set:
            raise ValueError(f"top does nothing with task {self.task}; leave it out")
        if self.task in PICTURE_TASKS and self.distill is not None:
            raise ValueError(f"distill knows classes and rankings; with task {self.task} leave it out")
        if self.task in PICTURE_TASKS and (self.augment or "").startswith("emberline.models.augmentation:"):
            raise ValueError(f"augment would move pictures and not what task {self.task} is told of them; leave it out")
        if self.distill is not None and self.distill.recorded is not None and self.augment is not None:
            raise ValueError("recorded answers are to rows as they are; use a live teacher, or leave augment out")
        return self

    @model_validator(mode="after")
    def _what_fsdp_gives_up(self) -> "Train":
        unused = self.model_fields_set & {"reduce", "snapshot_every", "virtual_shards"}
        if self.strategy == "replicate":
            return self
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))} does nothing with strategy fsdp2; leave it out")
        if self.ema is not None or self.precision == "float16" or self.checkpoints is not None:
            raise ValueError("ema, precision float16 and checkpoints in an object store cannot go with strategy fsdp2")
        if self.batch_size == "auto":
            raise ValueError("batch_size: auto tries whole models, so it cannot go with strategy fsdp2; set a number")
        return self
