"""How well a set of vectors finds the items that belong together, and how sure that is."""

from n2kit.evaluate.buckets import Bucket, buckets
from n2kit.evaluate.compare import Change, check_same_items, compare
from n2kit.evaluate.protocol import WHY_LEFT_OUT, Figure, Report, evaluate, greedy_pairs

__all__ = [
    "WHY_LEFT_OUT",
    "Bucket",
    "Change",
    "Figure",
    "Report",
    "buckets",
    "check_same_items",
    "compare",
    "evaluate",
    "greedy_pairs",
]
