"""Trainings whose steps cost what real ones cost: a convolutional one that computes, a linear one that is large."""

from pathlib import Path

_CODE = '''
import numpy as np
from torch import nn
from emberline.data import Splits, rows_from_arrays
from emberline.models.resnet import resnet8

BATCH = 16

def net():
    return resnet8()

def large_net(width=3000):
    """Nine million weights: 100 MB with AdamW's two moments."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.ReLU(), nn.Linear(width, 10))

def data(train=960):
    random = np.random.default_rng(0)
    def rows(n):
        return rows_from_arrays("x", random.normal(size=(n, 3, 32, 32)).astype(np.float32), random.integers(0, 10, n))
    return Splits(rows(train), rows(8), rows(8))
'''

_RECIPE = """
run: net
seed: 1
model: {factory: benchnet:net}
data: {source: benchnet:data}
preprocessing: {inputs: [{name: x, shape: [3, 32, 32]}]}
labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
train:
  epochs: 1000
  batch_size: 96
  virtual_shards: 12
  optimizer: {name: adamw, learning_rate: 0.001}
  schedule: constant
  checkpoint_every_s: 30
"""


def make(folder: Path) -> Path:
    """Writes the training into a folder; returns its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchnet.py").write_text(_CODE)
    (folder / "net.yaml").write_text(_RECIPE)
    return folder / "net.yaml"
