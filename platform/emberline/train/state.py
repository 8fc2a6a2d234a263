"""The state of training as named tensors: what snapshots, checkpoints and newcomers are given.

Besides these tensors there is only the step: order of rows, random numbers and learning rate are functions of it.
"""

from dataclasses import dataclass

import torch
from torch import nn, optim

from emberline.errors import EmberlineError

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Learner:
    """The model with its optimizer."""

    model: nn.Module
    optimizer: optim.Optimizer

    def tensors(self) -> Tensors:
        """All tensors, by name: `model/<name>` and `optimizer/<parameter's index>/<name>`. They are not copies."""
        named: Tensors = {}
        for name, value in self.model.state_dict().items():
            if not isinstance(value, torch.Tensor):
                hint = "keep it in a buffer, or leave it out of state_dict()"
                raise EmberlineError(f"state {name!r} is {type(value).__name__}, no tensor", place="model", hint=hint)
            named[f"model/{name}"] = value
        for index, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    named[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
        return named

    def load(self, tensors: Tensors) -> None:
        """Takes over model and optimizer from tensors that `tensors()` gave.

        Raises:
            EmberlineError: they belong to another model.
        """
        model: Tensors = {}
        optimizer: dict[int, Tensors] = {}
        for path, tensor in tensors.items():
            kind, _, name = path.partition("/")
            if kind == "model":
                model[name] = tensor
            else:
                index, _, name = name.partition("/")
                optimizer.setdefault(int(index), {})[name] = tensor.clone()
        try:
            self.model.load_state_dict(model, strict=True)
        except RuntimeError as error:
            fact = " ".join(str(error).split())[:300]
            hint = "the model's code was changed since; use another run name (--set run=NAME)"
            raise EmberlineError(f"the saved state is of another model: {fact}", place="model", hint=hint) from error
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
