"""How many requests a second the router takes: of all clients together, and of each unit."""

from typing import Any

from emberline.route.clusters import TYPE

Json = dict[str, Any]
RATE_FILTER = "envoy.filters.http.local_ratelimit"
UNIT_RATE_FILTER = "emberline.unit_rate"
_MOST_UNITS = 100_000  # whose counts are held at once; the one longest unseen is forgotten first


def rate_limit(per_s: int) -> Json:
    """The limit of all clients together, in one process."""
    return {"name": RATE_FILTER, "typed_config": {**_limit("all"), "token_bucket": _bucket(per_s)}}


def unit_rate_filter() -> Json:
    """Does nothing by itself: routes with units bring the limit."""
    return {"name": UNIT_RATE_FILTER, "typed_config": {"@type": _limit("")["@type"], "stat_prefix": "units"}}


def unit_rate_limit(header: str, per_s: int) -> Json:
    """A bucket for each value of a header; Envoy makes them as values come, since the descriptor's entry has none."""
    return {
        **_limit("units"),
        # a bucket of its own is required; it is never what runs dry
        "token_bucket": _bucket(1_000_000_000),
        "descriptors": [{"entries": [{"key": "unit"}], "token_bucket": _bucket(per_s)}],
        "max_dynamic_descriptors": _MOST_UNITS,
        "rate_limits": [{"actions": [{"request_headers": {"header_name": header, "descriptor_key": "unit"}}]}],
    }


def _limit(stat_prefix: str) -> Json:
    everything = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": f"{TYPE}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": stat_prefix,
        "filter_enabled": everything,
        "filter_enforced": everything,
    }


def _bucket(per_s: int) -> Json:
    return {"max_tokens": per_s, "tokens_per_fill": per_s, "fill_interval": "1s"}
