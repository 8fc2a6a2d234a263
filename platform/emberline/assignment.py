"""Which variant a unit is assigned to: a pure function, byte-equal to what Envoy computes.

Source: Envoy 1.40 `weighted_clusters` with `use_hash_policy`: xxh64 (seed 0) of the rewritten header, modulo the total
weight, then cumulative in list order. Guarded by a conformance test against the real Envoy.
"""

from collections.abc import Sequence

import xxhash

from emberline.errors import InvalidSetting

MAX_UNIT_BYTES = 256


def bucket(salt: str, unit: str, total: int = 10_000) -> int:
    """The unit's bucket in [0, total).

    Raises:
        InvalidSetting: the unit's id is empty or longer than 256 bytes; the router answers such requests with 400.
    """
    if not 0 < len(unit.encode()) <= MAX_UNIT_BYTES:
        raise InvalidSetting("assignment", "unit", f"{len(unit.encode())} bytes", f"1 to {MAX_UNIT_BYTES} bytes")
    return int(xxhash.xxh64_intdigest(f"{salt}:{unit}".encode(), seed=0)) % total


def layer_bucket(layer: str, unit: str, total: int = 10_000) -> int:
    """The unit's bucket in [0, total) among a layer's slices; drawn apart from any experiment's.

    Source: Envoy 1.40's `consistent_hashing` matcher: xxh64 of the id alone, seeded; the seed is xxh64 of the name.
    """
    return int(xxhash.xxh64_intdigest(unit.encode(), seed=layer_seed(layer))) % total


def layer_seed(layer: str) -> int:
    """64 bits that stand for a layer's name."""
    return int(xxhash.xxh64_intdigest(layer.encode(), seed=0))


def assign(salt: str, unit: str, weights: Sequence[int]) -> int:
    """Index of the unit's variant.

    Weights are in the order of the variants, treatments first: when a treatment grows at the control's cost, the units
    already treated stay treated.
    """
    position = bucket(salt, unit, sum(weights))
    for index, weight in enumerate(weights):
        if position < weight:
            return index
        position -= weight
    raise AssertionError("a bucket lies below the sum of the weights")
