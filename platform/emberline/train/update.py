"""What becomes of a step's gradients: unscaled, clipped, refused where not finite, handed to the optimizer."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from emberline.errors import EmberlineError
from emberline.train.gradients import Combined, Job
from emberline.train.state import Learner
from emberline.train.world import peers_guarded


class NotFinite(EmberlineError):
    """A loss or gradient is NaN or infinite; the same steps would come to it again."""


class Update:
    """Moves the weights by gradients that are the same at every rank, so all ranks move alike.

    Args:
        clip_norm: the norm of all gradients together, above which they are scaled down.
    """

    def __init__(self, job: Job, learner: Learner, clip_norm: float | None) -> None:
        self._job, self._learner, self._clip_norm = job, learner, clip_norm
        self._parameters = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]

    def check(self, step: int, combined: Combined) -> bool:
        """Makes the gradients ready; False where float16's overflowed, so that this step is left out.

        Raises:
            NotFinite: the loss or a gradient is, and a smaller scale would not help.
        """
        scaler = self._learner.scaler
        if scaler is not None:
            scaler.unscale_(self._learner.optimizer)
        norm = clip(self._parameters, self._clip_norm)
        if scaler is not None and scaler.get_scale() > 1 and math.isfinite(combined.loss) and not math.isfinite(norm):
            return False
        require_finite(self._job, step, combined, norm)
        return True

    def apply(self) -> None:
        """The optimizer's step, and what follows it; the scaler leaves out the one that overflowed."""
        learner = self._learner
        if learner.scaler is None:
            learner.optimizer.step()
        else:
            learner.scaler.step(learner.optimizer)
            learner.scaler.update()
        learner.moved()


def clip(parameters: list[nn.Parameter], limit: float | None) -> float:
    """The norm of all gradients together, which are scaled down where it is above the limit."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with peers_guarded():
        norm = torch.nn.utils.get_total_norm(gradients, foreach=False)
        if isinstance(norm, Divided):
            norm = norm.full_tensor()
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=False)
    return float(norm)


@runtime_checkable
class Divided(Protocol):
    """A tensor of which each worker has a part, as FSDP's are; its own type is in a module that is slow to import."""

    def full_tensor(self) -> torch.Tensor: ...


def require_finite(job: Job, step: int, combined: Combined, norm: float) -> None:
    """Raises before a NaN reaches a weight; names the rank and shard it came from."""
    if math.isfinite(combined.loss) and math.isfinite(norm):
        return
    own = [(job.world.rank, shard) for shard, loss in combined.own_losses.items() if not math.isfinite(loss)]
    culprits = [one for many in job.world.gather(own) for one in many]
    what = f"the loss is {combined.loss}" if not math.isfinite(combined.loss) else f"the gradients' norm is {norm}"
    place = f"rank {culprits[0][0]}, step {step}, shard {culprits[0][1]}" if culprits else f"all ranks, step {step}"
    hint = "lower train.optimizer.learning_rate, set train.clip_norm, or look for bad values in these rows"
    raise NotFinite(f"{what}; a finite number is required", place=place, hint=hint)
