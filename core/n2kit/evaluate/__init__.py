"""Recall of a set of vectors on pairs."""

from n2kit.evaluate.protocol import Report, evaluate, greedy_pairs

__all__ = ["Report", "evaluate", "greedy_pairs"]
