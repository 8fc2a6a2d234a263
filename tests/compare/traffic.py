"""Synthetic traffic as the router and the outcomes endpoint would leave it: Parquet by the shared schemas."""

import uuid
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emberline.assignment import assign
from emberline.experiment import Experiment, parse_experiment
from emberline.exposure import EXPOSURES, OUTCOMES, hash_unit, partition_name

KEY = b"k" * 32
SPEC = {
    "model": "digits",
    "variants": [{"name": "int8", "version": "1.1"}, {"name": "fp32", "version": "1.0", "control": True}],
    "primary": {"metric": "correct", "margin": -0.05},
    "guardrails": [
        {"metric": "error", "max_increase": 0.02},
        {"metric": "latency_ms", "kind": "exceedance", "above": 50, "max_increase": 0.05},
    ],
    "ramp": [
        {"shadow": 1.0, "until": {"disagreement_below": 0.05, "max_wait": "1h"}},
        {"weight": 1000, "until": {"min_units": 1000, "max_wait": "1h"}},
        {"weight": 5000, "until": {"max_wait": "1h"}},
    ],
}


def document(name="trial", **changes) -> dict:
    return {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {**SPEC, **changes},
    }


def experiment(name="trial", status=None, **changes) -> Experiment:
    return parse_experiment({**document(name, **changes), "status": status or {}}, Path("test.yaml"))


def in_step(step: int, since=1000.0, name="trial", **changes) -> Experiment:
    """An experiment that stands in a step of its ramp, confirmed at `since`."""
    bare = experiment(name, **changes)
    ramp = bare.spec.ramp[step]
    treated = ramp.weight or 0
    status = {
        "phase": "Shadow" if ramp.shadow else "Ramping",
        "step": step,
        "weights": {"int8": treated, "fp32": 10_000 - treated},
        "shadow": ramp.shadow or 0.0,
        "since": since,
        "revision": step + 1,
        "spec_digest": bare.spec_digest,
    }
    return experiment(name, status, **changes)


class Traffic:
    """Appends exposures and outcomes for an experiment's current configuration."""

    def __init__(self, data: Path, seed=0):
        self.data, self.rng = data, np.random.default_rng(seed)

    def send(
        self,
        experiment,
        units,
        *,
        first=0,
        requests=1,
        correct=(0.9, 0.9),
        errors=(0.0, 0.0),
        slow=(0.0, 0.0),
        disagree=0.0,
        at=1001.0,
        config_version=None,
        weights=None,
        outcomes=True,
        by_request=True,
        copies=1,
    ):
        """Each of `units` units sends `requests`; pairs of rates are (treatment, control). Returns the rows."""
        exposures, results = [], []
        names = [variant.name for variant in experiment.spec.variants]
        for index in range(first, first + units):
            arm = assign(experiment.salt, f"u{index}", weights or experiment.weights)
            for _ in range(requests):
                row = self._exposure(experiment, f"u{index}", names[arm], at, config_version)
                row["status"] = 500 if self.rng.random() < errors[arm] else 200
                row["latency_ms"] = 80.0 if self.rng.random() < slow[arm] else 5.0
                exposures += [row] * copies
                if self.rng.random() < experiment.status.shadow:
                    label = "8" if self.rng.random() < disagree else row["label"]
                    exposures.append(
                        {**row, "variant": names[0], "served_variant": names[0], "shadow": True, "label": label}
                    )
                if outcomes:
                    value = float(self.rng.random() < correct[arm])
                    results += [self.outcome(row, value, by_request)] * copies
        self.write("exposures", exposures, EXPOSURES)
        self.write("outcomes", results, OUTCOMES)
        return exposures

    def _exposure(self, experiment, unit, variant, at, config_version):
        return {
            "time_us": int(at * 1e6),
            "experiment": experiment.name,
            "config_version": config_version or experiment.config_version,
            "unit": hash_unit(KEY, unit),
            "request_id": uuid.UUID(bytes=self.rng.bytes(16)).hex,
            "model": "digits",
            "variant": variant,
            "served_variant": variant,
            "version": "1.0",
            "shadow": False,
            "status": 200,
            "latency_ms": 5.0,
            "label": "3",
            "score": 0.9,
        }

    def outcome(self, row, value, by_request=True, at=None):
        return {
            "time_us": int(at * 1e6) if at else row["time_us"] + 1,
            "event_id": f"e-{row['request_id']}",
            "unit": row["unit"],
            "request_id": row["request_id"] if by_request else None,
            "metric": "correct",
            "value": value,
        }

    def write(self, kind, rows, schema):
        parts = defaultdict(list)
        for row in rows:
            parts[partition_name(row["unit"])].append(row)
        for part, members in parts.items():
            folder = self.data / kind / part
            folder.mkdir(parents=True, exist_ok=True)
            name = uuid.UUID(bytes=self.rng.bytes(16)).hex
            partial = folder / f".{name}.partial"
            pq.write_table(pa.Table.from_pylist(members, schema=schema), partial)
            partial.rename(folder / f"{name}.parquet")
