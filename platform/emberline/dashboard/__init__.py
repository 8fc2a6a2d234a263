"""Experiments as they run, in the browser: read-only, without a network of its own, at / and behind the router."""
