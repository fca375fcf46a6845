"""Laws of indexes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from n2kit.contract.index import Index
from n2kit.testing.laws import law
from n2kit.testing.under_test import IndexUnderTest, folder


@law("index")
def a_vector_finds_itself(under_test: IndexUnderTest) -> None:
    """Best first, scores are dot products; nearly every stored vector is its own nearest."""
    vectors = under_test.vectors().numpy()
    scores, rows = under_test.part.search(vectors, 10)
    assert scores.shape == rows.shape == (len(vectors), 10), f"search gives shapes {scores.shape} and {rows.shape}"
    assert (np.diff(scores, axis=1) <= 1e-6).all(), "scores are not in descending order"
    hits = float((rows[:, 0] == np.arange(len(vectors))).mean())
    assert hits > 0.9, f"only {hits:.0%} of the vectors find themselves first"
    found = np.stack([under_test.part.vector(int(row)) for row in rows[:, 1]])  # as they are stored
    assert np.allclose(scores[:, 1], (vectors * found).sum(1), atol=0.02), "scores are not dot products"


@law("index")
def more_neighbours_than_vectors(under_test: IndexUnderTest) -> None:
    """Asked for more than there are, the rest of the rows are -1."""
    vectors = under_test.vectors().numpy()
    _, rows = under_test.part.search(vectors[:2], len(vectors) + 5)
    assert rows.shape == (2, len(vectors) + 5), f"rows have shape {rows.shape}"
    assert (rows[:, -5:] == -1).all(), "rows beyond the stored ones are not -1"


@law("index", of=Index)
def gives_back_what_it_stores(under_test: IndexUnderTest) -> None:
    """`vector(row)` is the stored vector, nearly; saved and loaded, it finds the same."""
    vectors = under_test.vectors().numpy()
    assert (vectors @ under_test.part.vector(7)).argmax() == 7, "vector(7) is another"
    want = under_test.part.search(vectors[:20], 5)[1]
    with folder() as where:
        under_test.part.save(where)
        got = type(under_test.part).load(where).search(vectors[:20], 5)[1]
    assert (want == got).all(), "the loaded index finds other rows"


@law("index", of=Index)
def pieces_give_the_whole(under_test: IndexUnderTest) -> None:
    """Built of pieces it holds every vector, in order, and each finds itself."""
    vectors = under_test.vectors().numpy()
    made = under_test.component.cls().build_from(
        lambda: [vectors[:70], vectors[70:]], len(vectors), vectors.shape[1], under_test.config
    )
    _holds(made, vectors)


@law("index", of=Index)
def what_is_removed_is_gone_and_what_is_added_is_found(under_test: IndexUnderTest) -> None:
    """Updated it holds the rows that stay and the new vectors, in that order; itself it is as before, also saved and loaded."""
    vectors = under_test.vectors().numpy()
    stay = np.delete(np.arange(len(vectors)), [0, 5, 199])
    new = vectors[[5, 0]][:, ::-1].copy()
    made = under_test.part.updated(stay, new, under_test.config)
    want = np.concatenate([vectors[stay], new])
    _holds(made, want)
    with folder() as where:
        made.save(where)
        _holds(type(made).load(where), want)
    _holds(under_test.part, vectors)


def _holds(index: Any, vectors: np.ndarray) -> None:
    assert index.rows in (None, len(vectors)), f"it holds {index.rows} vectors, and not {len(vectors)}"
    hits = float((index.search(vectors, 1)[1][:, 0] == np.arange(len(vectors))).mean())
    assert hits > 0.9, f"only {hits:.0%} of the vectors find themselves first"
    # What an index keeps of a vector may be a code of it, as near as the CPU that trained the codes made it.
    last, some = len(vectors) - 1, np.array([len(vectors) - 1, 0, 7])
    assert (vectors @ index.vector(last)).argmax() == last, "the last vector is another"
    assert ((index.vectors(some) @ vectors.T).argmax(1) == some).all(), "vectors(rows) are others"


@law("index", of=Index)
def every_option_is_read(under_test: IndexUnderTest) -> None:
    """No option is accepted and ignored: building, searching and saving read each one."""
    read: set[str] = set()
    given = under_test.config
    watched: Any = type(type(given).__name__, (type(given),), {"__getattribute__": noting(type(given), read)})
    config = watched.model_construct(**dict(given))
    read.clear()
    vectors = under_test.vectors().numpy()
    made = under_test.component.cls().build(vectors, config)
    made.search(vectors[:2], 3)
    with folder() as where:
        made.save(where)
    whole = read & {"__dict__", "model_dump", "model_dump_json", "__iter__"}
    ignored = [] if whole else [name for name in type(given).model_fields if name not in read]
    assert not ignored, f"it does not read its option {', '.join(ignored)}"


def noting(made: Any, read: set[str]) -> Callable[[Any, str], Any]:
    """Make a `__getattribute__` that notes each name in `read`."""

    def get(self: Any, name: str) -> Any:
        read.add(name)
        return made.__getattribute__(self, name)

    return get
