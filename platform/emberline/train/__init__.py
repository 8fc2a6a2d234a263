"""Elastic training: the same weights whatever workers came and went."""
