"""The stages, one a file: each takes a state and returns the next."""
