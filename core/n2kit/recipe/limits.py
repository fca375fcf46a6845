"""Limits of what an evaluation accepts: a larger number is a typing mistake, and would not fit into memory."""

MOST_K = 1_000_000_000  # more than any pool has
MOST_RESAMPLES = 1_000_000
