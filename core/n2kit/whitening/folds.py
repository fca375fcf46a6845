"""Folds for cross-validation: whole connected components of the pairs' graph, so that no item is in two folds."""

from __future__ import annotations

import numpy as np

from n2kit.whitening.statistics import PairRows

FOLDS = 4
LARGEST = 0.75  # of the pairs; a component that holds more leaves too little to fit on


def folds(pairs: PairRows) -> np.ndarray | str:
    """Give each pair the number of its fold [P]; or say why there can be none."""
    component = _components(pairs)
    sizes = np.bincount(component)
    if len(sizes) < 2:
        return "all pairs hang together"
    if sizes.max() > LARGEST * len(pairs):
        return f"{sizes.max() / len(pairs):.0%} of the pairs hang together"
    filled = np.zeros(min(FOLDS, len(sizes)), np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for number in np.argsort(-sizes, kind="stable"):  # the largest first, into the emptiest fold
        fold_of[number] = filled.argmin()
        filled[fold_of[number]] += sizes[number]
    of_pair: np.ndarray = fold_of[component]
    return of_pair


def _components(pairs: PairRows) -> np.ndarray:
    """Number the connected component of each pair [P], by union and find."""
    items, ends = np.unique(np.stack([pairs.left, pairs.right]), return_inverse=True)
    parent = np.arange(len(items))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = int(parent[n])
        return n

    left, right = ends.reshape(2, -1)
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        parent[root(a)] = root(b)
    return np.unique([root(a) for a in left.tolist()], return_inverse=True)[1]
