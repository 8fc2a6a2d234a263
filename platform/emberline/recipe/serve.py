"""With how many workers, in which batches and on which devices versions are served."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from emberline.recipe.fields import Section


class Tuned(Section):
    """What `emberline tune` found best for one artifact, on the machine where it ran."""

    workers: int = Field(ge=1)
    threads: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    batch_delay_ms: int = Field(ge=0)


class Serve(Section):
    workers: int = Field(default=2, ge=1)
    """Per version. Two keep serving while one is replaced; each costs its own copy of the model."""
    batch_size: int = Field(default=32, ge=1)
    batch_delay_ms: int = Field(default=0, ge=0)
    """Longest wait for a batch to fill; with 0 a worker takes what waits, which fills batches when there is load."""
    take_waiting: bool = True
    """With `batch_delay_ms: 0`, take all requests that wait; False is TorchServe's own rule, at most two of them."""
    tuned: bool = True
    """Serve an artifact that `emberline tune` looked at with the workers, batches and delay that it found best."""
    threads: int = Field(default=1, ge=1)
    devices: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """GPUs that each version's workers take in turns, by number; none: the CPU. One worker each, without `workers`."""
    device_memory_share: float | None = Field(default=None, gt=0, le=1)
    """Fraction of its GPU's memory that a worker may take; absent, as much as there is."""
    response_timeout_s: int = Field(default=4, ge=1)
    """A worker that is at one batch for longer is replaced; under the router's 10 s, which cover a repetition too."""
    queue_size: int = Field(default=1000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_process_a_gpu(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("devices") and "workers" not in given:
            devices = given["devices"]
            return {**given, "workers": len(devices) if isinstance(devices, list | tuple) else 1}
        return given

    @model_validator(mode="after")
    def _devices_have_room(self) -> "Serve":
        if len(set(self.devices)) < len(self.devices):
            raise ValueError(f"devices names a GPU twice: {list(self.devices)}; several workers share one by workers")
        if self.device_memory_share is not None:
            if not self.devices:
                raise ValueError("device_memory_share does nothing without devices; leave it out")
            each = -(-self.workers // len(self.devices))
            if each * self.device_memory_share > 1:
                raise ValueError(f"{each} workers, each with {self.device_memory_share:g} of it, do not fit one GPU")
        return self
