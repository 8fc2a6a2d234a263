"""The state of training as named tensors: what snapshots, checkpoints and newcomers are given.

Besides these tensors there is only the step: order of rows, random numbers and learning rate are functions of it.
"""

import torch
from torch import nn, optim
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emberline.errors import EmberlineError

Tensors = dict[str, torch.Tensor]


class Learner:
    """The model with its optimizer, and what else training carries from step to step.

    Args:
        ema: decay of the moving average of the weights, if there is one.
        scaler: of the loss, for float16.
        keeps_best: whether the best weights so far are carried along, for early stopping.

    Attributes:
        progress: counts, the best metric so far and the last step's loss, as tensors of one number, changed in place.
        best: the best weights so far.
    """

    def __init__(
        self, model: nn.Module, optimizer: optim.Optimizer, *,
        ema: float | None = None, scaler: GradScaler | None = None, keeps_best: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        average = get_ema_multi_avg_fn(ema) if ema is not None else None  # type: ignore[no-untyped-call]  # torch's own
        self._average = AveragedModel(model, multi_avg_fn=average) if ema is not None else None
        self.progress: Tensors = {
            "evaluated": torch.tensor(0),
            "bad_epochs": torch.tensor(0),
            "best_epoch": torch.tensor(0),
            "best_value": torch.tensor(float("nan"), dtype=torch.float64),
            "loss": torch.tensor(float("nan"), dtype=torch.float64),
        }
        self.best: Tensors = _copies(self.evaluated.state_dict()) if keeps_best else {}
        self._settled: Tensors = {}
        self.settle()

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and kept: the averaged model where there is one."""
        return self.model if self._average is None else self._average.module

    def settle(self) -> None:
        """Called between steps: from now on `tensors()` gives buffers as they are now, whatever a forward does."""
        self._settled = {name: b.detach().clone() for name, b in self.model.named_buffers(remove_duplicate=False)}

    def moved(self) -> None:
        """Called when the optimizer has moved: the average follows."""
        if self._average is not None:
            self._average.update_parameters(self.model)
        self.settle()

    def keep_best(self) -> None:
        """Remembers the weights as the best so far."""
        for name, value in self.evaluated.state_dict().items():
            self.best[name].copy_(value)

    def take_best(self) -> Tensors:
        """Goes back to the best weights; returns the last ones where that changed anything, else nothing."""
        epoch = int(self.progress["best_epoch"])
        if not self.best or epoch in {0, int(self.progress["evaluated"])}:  # 0: no epoch was better than nothing
            return {}
        last = _copies(self.evaluated.state_dict())
        self.evaluated.load_state_dict(self.best)
        return last

    def tensors(self) -> Tensors:
        """All tensors by name, such as `model/<name>` or `optimizer/<parameter's index>/<name>`. They are not copies.

        They are the state between two steps, also when asked for by another thread while a step is computed.
        """
        named: Tensors = {}
        for name, value in self.model.state_dict().items():
            if not isinstance(value, torch.Tensor):
                hint = "keep it in a buffer, or leave it out of state_dict()"
                raise EmberlineError(f"state {name!r} is {type(value).__name__}, no tensor", place="model", hint=hint)
            named[f"model/{name}"] = self._settled.get(name, value)
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    named[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
        named |= {f"progress/{name}": value for name, value in self.progress.items()}
        named |= {f"best/{name}": value for name, value in self.best.items()}
        if self._average is not None:
            named |= {f"average/{name}": value for name, value in self._average.state_dict().items()}
        if self.scaler is not None:
            scale = self.scaler.state_dict()
            named |= {f"scaler/{name}": torch.tensor(float(scale[name])) for name in ("scale", "_growth_tracker")}
        return named

    def load(self, tensors: Tensors) -> None:
        """Takes over all of it from tensors that `tensors()` gave.

        Raises:
            EmberlineError: they belong to another model.
        """
        kinds: dict[str, Tensors] = {}
        for path, tensor in tensors.items():
            kind, _, name = path.partition("/")
            kinds.setdefault(kind, {})[name] = tensor
        optimizer: dict[int, Tensors] = {}
        for path, tensor in kinds.get("optimizer", {}).items():
            index, _, name = path.partition("/")
            optimizer.setdefault(int(index), {})[name] = tensor.clone()
        try:
            self.model.load_state_dict(kinds.get("model", {}), strict=True)
            if self._average is not None:
                self._average.load_state_dict(kinds.get("average", {}), strict=True)
        except RuntimeError as error:
            fact = " ".join(str(error).split())[:300]
            hint = "the model's code was changed since; use another run name (--set run=NAME)"
            raise EmberlineError(f"the saved state is of another model: {fact}", place="model", hint=hint) from error
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        for kept, name in ((self.progress, "progress"), (self.best, "best")):
            for key, value in kept.items():
                value.copy_(kinds[name][key])
        if self.scaler is not None:
            scale = {name: float(value) for name, value in kinds["scaler"].items()}
            scale["_growth_tracker"] = int(scale["_growth_tracker"])
            self.scaler.load_state_dict({**self.scaler.state_dict(), **scale})
        self.settle()


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
