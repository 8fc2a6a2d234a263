"""One round of Emberline and its peers, and what rounds come to."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import _peers
from _emberline import served as emberline_served
from _models import archived
from _wrk import drive

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CONNECTIONS = (1, 16, 64)
COMPILED = "_compiled"  # behind the name of a peer that serves our compiled package
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
LEAST_SPEEDUP = 5.0  # what a compressed artifact owes
WARM_UP_S = 12.0  # java goes on compiling what is hot for as long; peers get the same


def round_of(
    ours: Path, theirs: Mapping[str, Path], body: Path, folder: Path, *, number: int, **kind: str
) -> dict[str, Any]:
    """Every server once, alone, ours first in even rounds and last in odd ones.

    Args:
        ours: artifact that Emberline serves.
        theirs: artifact that each peer serves; the same peer may be there twice, with and without `_compiled`.
    """
    served = {"emberline": ours, **theirs}
    order = list(served)[:: 1 if number % 2 == 0 else -1]
    return {
        name: _one(name.removesuffix(COMPILED), served[name], body, folder=folder / name, kind=kind) for name in order
    }


def _one(name: str, artifact: Path, body: Path, *, folder: Path, kind: dict[str, str]) -> dict[str, Any]:
    folder.mkdir()
    made = {"bentoml": _peers.bento_body, "triton": _peers.triton_body}.get(name)
    sent = made(body) if made else body
    if name == "triton":
        kind = {**kind, "content_type": "application/json"}
    serving: AbstractContextManager[tuple[str, int]]
    if name == "emberline":
        archive, keys = archived(artifact, folder, "model")
        serving = emberline_served(folder, [archive], keys)
    else:
        serving = _peers.served(name, artifact, sent, folder, **kind)
    try:
        with serving as (address, pid):
            url = f"http://{address}/predictions/model/1.0" if name == "emberline" else address
            drive(url, sent, 32, WARM_UP_S, pid, **kind)
            return {str(count): asdict(drive(url, sent, count, SECONDS, pid, **kind)) for count in CONNECTIONS}
    except Exception as error:
        if name == "emberline":
            raise
        return {"failed": str(error)[-300:]}


def summarise(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and medians of the rounds' ratios of our requests a second to each peer's."""
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    medians: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for name in names:
        whole = [trial for trial in trials if name in trial and "failed" not in trial[name]]
        for count in map(str, CONNECTIONS):
            if not whole:
                continue
            seen = [trial[name][count] for trial in whole]
            medians.setdefault(name, {})[count] = {key: round(median(one[key] for one in seen), 2) for key in seen[0]}
            if name != "emberline":
                each = [trial["emberline"][count]["rps"] / trial[name][count]["rps"] for trial in whole]
                ratios.setdefault(name, {})[count] = round(median(each), 2)
    failed = {name: reason for trial in trials for name in trial if (reason := trial[name].get("failed"))}
    return {"medians": medians, "ratios": ratios, "failed": failed, "rounds": len(trials)}


def summarise_compressed(trials: list[dict[str, Any]], gate: float) -> dict[str, Any]:
    """The same where ours is compressed and the peers' is not: 5 times each at 16 connections, within the gate.

    What serves our compiled float package is on record, and no part of the target.
    """
    found = summarise([one["servers"] for one in trials])
    drop = max(one["accuracy_drop"] for one in trials)
    eager = {name: by["16"] for name, by in found["ratios"].items() if not name.endswith(COMPILED)}
    short = {name: ratio for name, ratio in eager.items() if ratio < LEAST_SPEEDUP}
    reached = not short and not found["failed"] and drop <= gate
    return {**found, "accuracy_drop": round(drop, 4), "missed": short, "reached": reached}
