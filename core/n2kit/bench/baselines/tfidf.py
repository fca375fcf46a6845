"""TF-IDF of an item's text, as dense unit vectors: a baseline of words alone, without any model."""

from __future__ import annotations

import numpy as np

from n2kit.data.items import Item, Items
from n2kit.errors import BadInput, Unavailable
from n2kit.modeling.prompts import split_topics

LARGEST = 4 * 10**9  # bytes of the dense matrix


def tfidf(items: Items) -> np.ndarray:
    """Compute TF-IDF as unit vectors [n, d] float32, zeros for items without a text; equal texts have equal rows.

    Half of a vector are words, half are runs of 1 to 4 characters within words, both weighed by (1 + log tf) · idf over the whole
    catalogue. Scripts that are written without spaces are matched by the characters: a Chinese title is one word.

    Raises:
        Unavailable: scikit-learn is not installed. BadInput: the matrix would be larger than 4 GB.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise Unavailable("the baseline tfidf needs scikit-learn", 'pip install "n2kit[bench]"') from None
    from scipy.sparse import hstack

    texts = [text_of(item) for item in items]
    if not any(texts):
        return np.zeros((len(items), 1), np.float32)
    words = TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True, dtype=np.float32)
    runs = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, dtype=np.float32)
    joined = hstack([words.fit_transform(texts), runs.fit_transform(texts)], format="csr")
    if (size := 4 * joined.shape[0] * joined.shape[1]) > LARGEST:
        raise BadInput(
            f"TF-IDF of {len(items)} items has {joined.shape[1]} columns: {size / 1e9:.0f} GB, and at most {LARGEST / 1e9:.0f} are made",
            "leave the baseline tfidf out, or take a smaller catalogue",
        )
    dense: np.ndarray = joined.toarray()
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    return dense


def text_of(item: Item) -> str:
    """Join title, topics and content as a prompt has them, on a line each."""
    content, found = split_topics(item.content)
    return "\n".join(part for part in (item.title, *item.topics, *found, content) if part)
