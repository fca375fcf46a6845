"""What an evaluation may be asked for: beyond it a number is a slip of the hand, and memory would not hold it."""

MOST_K = 1_000_000_000  # more than any pool has
MOST_RESAMPLES = 1_000_000
