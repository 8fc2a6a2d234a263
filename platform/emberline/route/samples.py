"""Requests on which the control and a shadow disagreed, kept for somebody to label. Off unless asked for.

Envoy leaves the body of each mirrored request in a file beside its log (`tap`). Once both answers of a request have
come by in the log, the file of a disagreement becomes `samples/<experiment>/<request id>.json`, and the file of an
agreement is deleted; so is one whose answers were not seen within two minutes, as after a restart.

Bodies are personal data as a rule. The folders are readable by their owner only, a sample says nothing of the unit, and
samples are deleted when they are as old as was said. A label comes back by `POST /v1/outcomes`, with the request's id.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from emberline.experiment import Agreement, Experiment
from emberline.exposure import Row
from emberline.route.clusters import TYPE

Json = dict[str, Any]
_PATIENCE_S = 120.0
_PREFIX = "copy"


@dataclass
class _Pair:
    """What is known of one request's two answers."""

    at: float
    experiment: str
    live: Row | None = None
    copy: Row | None = None


@dataclass
class Samples:
    """Joins answers with bodies. For the shipper's thread alone.

    Attributes:
        taps: folder that Envoy writes to.
        kept: folder of samples.
    """

    taps: Path
    kept: Path
    agreements: dict[str, Agreement] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    _pairs: dict[str, _Pair] = field(default_factory=dict)

    def prepare(self) -> None:
        for folder in (self.taps, self.kept):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def know(self, experiments: Iterable[Experiment]) -> None:
        """When two answers agree, and which variant is the control, by experiment."""
        experiments = tuple(experiments)
        self.controls = {one.name: one.spec.control.name for one in experiments}
        self.agreements = {one.name: one.spec.agreement for one in experiments}

    def see(self, row: Row) -> None:
        """An exposure that came by; the control's second answer is no shadow's."""
        if row["experiment"] not in self.agreements:
            return
        pair = self._pairs.setdefault(row["request_id"], _Pair(time.monotonic(), row["experiment"]))
        if not row["shadow"]:
            pair.live = row
        elif row["variant"] != self.controls[row["experiment"]]:
            pair.copy = row

    def sort(self) -> int:
        """Keeps bodies of disagreements, deletes the others; returns how many were kept now."""
        num_kept = 0
        for path in sorted(self.taps.glob(f"{_PREFIX}_*.json")):
            try:
                request = orjson.loads(path.read_bytes())["http_buffered_trace"]["request"]
            except (orjson.JSONDecodeError, KeyError):  # Envoy still writes it, or died while it did
                request = None
            headers = {one["key"]: one["value"] for one in request["headers"]} if request else {}
            pair = self._pairs.get(headers.get("x-request-id", ""))
            if pair is None or pair.live is None or pair.copy is None:
                if time.time() - path.stat().st_mtime > _PATIENCE_S:
                    path.unlink()
                continue
            if differ(self.agreements[pair.experiment], pair.live, pair.copy):
                self._keep(pair.live, pair.copy, headers, request["body"])
                num_kept += 1
            path.unlink()
            del self._pairs[headers["x-request-id"]]
        old = time.monotonic() - _PATIENCE_S
        self._pairs = {key: pair for key, pair in self._pairs.items() if pair.at > old}
        return num_kept

    def forget(self, keep_s: float) -> int:
        """Deletes samples older than that; returns how many."""
        old = [path for path in self.kept.glob("*/*.json") if time.time() - path.stat().st_mtime > keep_s]
        for path in old:
            path.unlink()
        return len(old)

    def _keep(self, live: Row, copy: Row, headers: dict[str, str], body: Json) -> None:
        sample = {
            "request_id": live["request_id"],
            "experiment": live["experiment"],
            "time": live["time_us"] / 1e6,
            "answers": [
                {name: row[name] for name in ("variant", "version", "status", "label", "score")} for row in (live, copy)
            ],
            "content_type": headers.get("content-type", ""),
            "body_base64": body.get("as_bytes", ""),
            "truncated": bool(body.get("truncated", False)),
        }
        folder = self.kept / live["experiment"]
        folder.mkdir(mode=0o700, exist_ok=True)
        partial = folder / f".{live['request_id']}.partial"
        partial.write_bytes(orjson.dumps(sample, option=orjson.OPT_INDENT_2))
        partial.rename(folder / f"{live['request_id']}.json")


def differ(agreement: Agreement, live: Row, copy: Row) -> bool:
    """Whether two answers to one request disagree, as assessments count it; a copy that failed does."""
    if live["status"] != 200:  # noqa: PLR2004 - HTTP
        return False
    if agreement.by == "label":
        return live["label"] is not None and copy["label"] != live["label"]
    if live["score"] is None:
        return False
    return bool(copy["score"] is None or abs(copy["score"] - live["score"]) > agreement.within)


def tap(folder: Path, max_bytes: int) -> Json:
    """Envoy's filter that leaves each request in a file."""
    output = {
        "max_buffered_rx_bytes": max_bytes,
        "max_buffered_tx_bytes": 1,
        "sinks": [{"format": "JSON_BODY_AS_BYTES", "file_per_tap": {"path_prefix": str(folder / _PREFIX)}}],
    }
    return {
        "name": "envoy.filters.http.tap",
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.tap.v3.Tap",
            "common_config": {"static_config": {"match": {"any_match": True}, "output_config": output}},
        },
    }
