"""Backends, one a file: from a state to a package."""
