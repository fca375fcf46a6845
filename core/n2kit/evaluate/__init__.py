"""Evaluation of vectors: recall and other metrics of finding the items that belong together, with intervals."""

from n2kit.evaluate.buckets import PairBucket, buckets
from n2kit.evaluate.compare import MetricChange, check_same_items, compare
from n2kit.evaluate.protocol import (
    WHY_LEFT_OUT,
    Figure,
    RankingReport,
    evaluate,
    greedy_pairs,
    protocol_of,
    ranked_pairs,
)
from n2kit.evaluate.sentences import image_sentence, recall_sentence
from n2kit.utils.callable_package import make_callable

make_callable(__name__, "n2kit.api.work")

__all__ = [
    "WHY_LEFT_OUT",
    "Figure",
    "MetricChange",
    "PairBucket",
    "RankingReport",
    "buckets",
    "check_same_items",
    "compare",
    "evaluate",
    "greedy_pairs",
    "image_sentence",
    "protocol_of",
    "ranked_pairs",
    "recall_sentence",
]
