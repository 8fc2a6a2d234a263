"""Optimizers as the recipe names them."""

import pytest
import torch

from emberline.recipe import Optimizer
from emberline.train.schedule import make_optimizer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weights_move_as_by_torchs_plain_optimizer_however_they_lie_in_memory(name, layout):
    settings = Optimizer(name=name, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    ours, plain = (torch.nn.Conv2d(5, 7, 3).to(memory_format=layout) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    rates = {"lr": 0.1, "weight_decay": 0.01, "fused": False}
    reference = (
        torch.optim.SGD(plain.parameters(), momentum=0.9, **rates)
        if name == "sgd"
        else torch.optim.AdamW(plain.parameters(), **rates)
    )
    optimizer = make_optimizer(ours.parameters(), settings)
    for _ in range(5):
        for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
            one.grad = torch.randn(one.shape)  # contiguous, as the sum over virtual shards is
            other.grad = one.grad.clone()
        optimizer.step()
        reference.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
