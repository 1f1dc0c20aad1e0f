"""Judging a checkpoint on held-out data."""
