"""A training so small that it can be run many times: dropout, batch norm, augmentation, and a hook to die at."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil
import pytest

from emberline import process
from emberline.runlog import read_events
from emberline.train.failure import read_failure

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "train"))  # its worlds start fast
import _worlds

TOY = '''
import builtins, os, signal, time
from pathlib import Path
import numpy as np, torch
from torch import nn
from emberline.data import Splits, rows_from_arrays

HERE = Path(__file__).parent

def net(broken=False, outputs=3):
    last = nn.Linear(15 if broken else 16, outputs)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), last)

def data(train=77):
    random = np.random.default_rng(0)
    def rows(n):
        y = random.integers(0, 3, n)
        return rows_from_arrays("x", (random.normal(size=(n, 6)) + y[:, None]).astype(np.float32), y)
    return Splits(rows(train), rows(30), rows(5))

calls = 0

def augment(inputs):
    """Dies, is stopped or computes long at the call that a file names; sleeps, or waits, while a file is there."""
    global calls
    calls += 1
    rank = os.environ["RANK"]
    for kind in ("kill", "stop", "busy"):
        order = HERE / f"{kind}-{rank}-{calls}"
        if order.exists():
            order.unlink()
            if kind == "busy":
                until = time.monotonic() + 5
                while time.monotonic() < until:
                    pass
            else:
                os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
    while (HERE / f"sleep-{rank}-{calls}").exists():
        time.sleep(0.02)
    if (HERE / f"slow-{rank}").exists():
        time.sleep(0.03)
    while calls > 20 and (HERE / "gate").exists():
        time.sleep(0.02)
    return (inputs[0] + 0.1 * torch.randn_like(inputs[0]),)

class Waits(nn.Module):
    """Waits in evaluation while there is a gate."""
    def forward(self, x):
        while not self.training and (HERE / "gate-evaluation").exists():
            (HERE / "waiting").touch()
            time.sleep(0.02)
        return x

def waiting_net():
    return nn.Sequential(net(), Waits())

class WaitingRows:
    """Waits at a read in the second epoch while there is a gate; one row of it cannot be read on demand."""
    def __init__(self, rows):
        self.rows, self.reads = rows, 0
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        self.reads += 1
        while self.reads > 50 and (HERE / "gate-data").exists():
            (HERE / "waiting").touch()
            time.sleep(0.02)
        if index == 40 and (HERE / "spoilt").exists():
            raise getattr(builtins, (HERE / "spoilt").read_text())("image file is truncated")
        return self.rows[index]

def waiting_data():
    while (HERE / "gate-start").exists():
        (HERE / "waiting").touch()
        time.sleep(0.02)
    splits = data()
    return Splits(WaitingRows(splits.train), splits.validation, splits.test)

class Huge(nn.Module):
    def forward(self, x):
        return x + torch.empty(1 << 50)[0]

def huge_net():
    return nn.Sequential(net(), Huge())

def nan_loss(outputs, labels):
    loss = nn.functional.cross_entropy(outputs, labels)
    return loss * float("nan") if os.environ.get("RANK") == "1" and calls >= 7 else loss
'''

RECIPE = """
run: toy
seed: 3
model: {factory: toy:net}
data: {source: toy:data}
preprocessing: {inputs: [{name: x, shape: [6]}]}
labels: [a, b, c]
train:
  epochs: 6
  batch_size: 24
  virtual_shards: 6
  optimizer: {name: adamw, learning_rate: 0.01, weight_decay: 0.01}
  warmup_steps: 3
  clip_norm: 1.0
  augment: toy:augment
  checkpoint_every_s: 0.001
  snapshot_every: 1
  hang_after_s: never  # most tests have a worker wait on purpose
"""


@dataclass
class Toy:
    """A folder with the toy's recipe, and what a training there left."""

    folder: Path
    launchers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "toy.py").write_text(TOY)
        (self.folder / "toy.yaml").write_text(RECIPE)

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "toy"

    def start(self, *options: str, workers: int = 2) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "emberline.cli",
            "train",
            "toy.yaml",
            "--nproc-per-node",
            str(workers),
            *options,
        ]
        return self.spawn(command)

    def spawn(self, command: list[str] | str) -> subprocess.Popen[str]:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        launcher = subprocess.Popen(
            command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            shell=isinstance(command, str), env={**os.environ, "PATH": path}, start_new_session=True,
        )  # fmt: skip
        self.launchers.append(launcher)
        return launcher

    def train(self, *options: str, workers: int = 2, code: int = 0) -> str:
        """Trains to the end; returns what was printed."""
        return self.finish(self.start(*options, workers=workers), code)

    def finish(self, launcher: subprocess.Popen[str], code: int = 0) -> str:
        output, _ = launcher.communicate(timeout=200)
        assert launcher.returncode == code, output
        return output

    def train_world(self, size: int, *settings: str) -> None:
        with self.world(size, *settings) as workers:
            _worlds.finish(workers)

    def world(self, size: int, *settings: str):
        """Workers without a launcher, which start in a fraction of the time; killed at the end of the block."""
        return _worlds.world(self.folder / "toy.yaml", size, settings=settings)

    def failure(self) -> str:
        """What a worker of `world` told of its failure."""
        return str(read_failure(self.folder / "failures"))

    def events(self, kind: str) -> list[dict]:
        return [event for event in read_events(self.run / "log.jsonl") if event["event"] == kind]

    def weights(self) -> str:
        return hashlib.sha256((self.run / "artifacts" / "trained" / "model.safetensors").read_bytes()).hexdigest()

    def snapshots(self) -> list[Path]:
        run_id = orjson.loads((self.run / "run.json").read_bytes())["id"]
        return [path for folder in (Path("/dev/shm"), self.run) for path in folder.glob(f"emberline-{run_id}-*")]

    def losses(self) -> list[float]:
        """The loss of each step, as it was computed last."""
        return list({event["step"]: event["loss"] for event in self.events("step")}.values())

    def wait_for_step(self, step: int) -> None:
        process.wait_until(
            lambda: any(event["step"] >= step for event in self.events("step")), 150, f"step {step} in the log"
        )

    def close(self) -> None:
        for launcher in self.launchers:
            if launcher.poll() is None:
                for child in psutil.Process(launcher.pid).children(recursive=True):
                    child.kill()
                launcher.kill()
            launcher.wait()
            if launcher.stdout:
                launcher.stdout.close()
        if (self.run / "run.json").exists():
            for path in self.snapshots():
                path.unlink()


@pytest.fixture
def toy(tmp_path):
    one = Toy(tmp_path / "toy")
    yield one
    one.close()


@pytest.fixture
def make_toy(tmp_path):
    """Further toys, by name."""
    made = []

    def make(name: str) -> Toy:
        made.append(Toy(tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The toy trained by one worker that nobody disturbs."""
    one = Toy(tmp_path_factory.mktemp("undisturbed"))
    one.train(workers=1)
    yield one
    one.close()
