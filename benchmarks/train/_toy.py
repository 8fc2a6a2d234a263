"""A training of a second or so in which everything random or stateful has its part."""

from pathlib import Path

_CODE = """
import numpy as np, torch
from torch import nn
from emberline.data import Splits, rows_from_arrays

def net():
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.3), nn.Linear(24, 3))

def data():
    random = np.random.default_rng(0)
    def rows(n):
        y = random.integers(0, 3, n)
        return rows_from_arrays("x", (random.normal(size=(n, 6)) + y[:, None]).astype(np.float32), y)
    return Splits(rows(301), rows(150), rows(5))

def augment(inputs):
    return (inputs[0] + 0.1 * torch.randn_like(inputs[0]) + np.float32(0.01 * np.random.randn()),)
"""

_RECIPE = """
run: toy
seed: 3
model: {factory: benchtoy:net}
data: {source: benchtoy:data}
preprocessing: {inputs: [{name: x, shape: [6]}]}
labels: [a, b, c]
train:
  epochs: 4
  batch_size: 24
  virtual_shards: 6
  accumulate: 2
  precision: bfloat16
  ema: 0.9
  early_stopping: {metric: loss, patience: 5}
  optimizer: {name: adamw, learning_rate: 0.01, weight_decay: 0.01}
  warmup_steps: 3
  clip_norm: 1.0
  augment: benchtoy:augment
  checkpoint_every_s: 2
  snapshot_every: 1
"""

TOTAL_STEPS = 28


def make(folder: Path) -> Path:
    """Writes the toy into a folder; returns its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchtoy.py").write_text(_CODE)
    (folder / "toy.yaml").write_text(_RECIPE)
    return folder / "toy.yaml"
