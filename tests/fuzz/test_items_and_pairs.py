"""Items, pairs and lists of ids in every format: read, or refused by one clear line, and every row is accounted for."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from fuzz import law
from fuzz.mutations import SCALARS, TEXTS, VALUES, mutated
from n2kit.data.items import FIELDS, Items, read_items
from n2kit.data.pairs import Pairs, read_ids, read_pairs
from n2kit.errors import BadInput, N2kitError

ROWS = [
    {"id": f"i:{n}", "image": f"{n}.png", "title": f"thing, {n}", "topics": ["a", "b"], "content": 'the "best"', "category": "x"}
    for n in range(4)
]  # fmt: skip
KNOWN = {f"i:{n}": n for n in range(4)}


def written(rows: list[dict[str, Any]], delimiter: str, header: bool = True) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(columns: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


FLAT = [{**row, "topics": "a|b"} for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ITEMS = {
    ".csv": [written(FLAT, ","), b"id,title\r\na,b\r\n\r\nc,d\r\n"],
    ".tsv": [written(FLAT, "\t"), b"id\ttitle\na\tb\n"],
    ".jsonl": [LINES, LINES.rstrip(), b'{"id": 1, "topics": "[\\"a\\"]"}\n\n'],
    ".ndjson": [LINES],
    ".parquet": [parquet({k: [row[k] for row in ROWS] for k in FIELDS}), parquet({"id": [1, 2, None], "title": [1.5, None, 2.0]})],
}  # fmt: skip
PAIRS = {
    ".csv": [b"query,target\ni:0,i:1\ni:2,i:3\n", b"i:0,i:1\n", b"left,right,grade,negative\ni:0,i:1,0.5,i:2|i:3\n"],
    ".tsv": [b"query\ttarget\tnegatives\ni:0\ti:1\ti:2 i:3\n"],
    ".jsonl": [b'{"query": "i:0", "target": "i:1", "negatives": ["i:2"]}\n{"query": "i:1", "target": "i:2", "grade": 1}\n'],
    ".parquet": [parquet({"query": ["i:0", "i:1"], "target": ["i:1", "i:2"], "score": [1.0, float("nan")], "negative": [["i:3"], None]})],
    "": [b"i:0,i:1\n"],
}  # fmt: skip


def accounted(path: Path, read_leniently: Any, read_strictly: Any, rows: int | None) -> None:
    """Check that a lenient reading keeps or reports each row, and that a strict one refuses as many as that one drops."""
    lenient, strict = law.read(read_leniently, path.name), law.read(read_strictly, path.name)
    if isinstance(lenient, BadInput):
        assert isinstance(strict, BadInput)
        return
    assert isinstance(lenient, Items | Pairs)
    assert all(line.startswith(f"{path}:") for line in lenient.dropped), lenient.dropped
    if rows is not None:
        assert len(lenient) + len(lenient.dropped) == rows
    if isinstance(strict, BadInput):
        assert strict.message.startswith(f"{len(lenient.dropped)} unusable row"), strict.message
    else:
        assert not lenient.dropped
        assert len(strict) == len(lenient)


def rows_of(content: bytes, suffix: str) -> int | None:
    """Count the rows of a file as its format has them; None where a wrong quote leaves open what a row is."""
    if suffix == ".parquet":
        return None
    text = content.decode("utf-8-sig")
    if suffix in (".jsonl", ".ndjson"):
        return len(re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text))
    if suffix == ".tsv":
        return sum(1 for _ in csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        return sum(1 for _ in csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return None


@given(data=st.data(), suffix=st.sampled_from(sorted(ITEMS)))
def test_every_row_of_a_damaged_items_file_is_read_or_reported(data: st.DataObject, suffix: str, ground: Path) -> None:
    path = ground / f"items{suffix}"
    content = data.draw(mutated(ITEMS[suffix]))
    path.write_bytes(content)
    readable = not isinstance(law.read(lambda: read_items(path, lenient=True), path.name), BadInput)
    rows = rows_of(content, suffix) if readable else None
    header = suffix in (".csv", ".tsv")
    accounted(
        path, lambda: read_items(path, lenient=True), lambda: read_items(path), None if rows is None else rows - header
    )


@law.cases(0.2)
@given(
    rows=st.lists(
        st.dictionaries(st.one_of(st.sampled_from(FIELDS), TEXTS), VALUES, max_size=5), min_size=1, max_size=5
    )
)
def test_every_value_of_a_jsonl_file_is_read_or_reported(rows: list[dict[str, Any]], ground: Path) -> None:
    path = ground / "values.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    accounted(path, lambda: read_items(path, lenient=True), lambda: read_items(path), len(rows))


@law.cases(0.2)
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(FIELDS, TEXTS)), min_size=1, max_size=5))
def test_every_text_of_a_csv_file_is_read_or_reported(rows: list[dict[str, str]], ground: Path) -> None:
    path = ground / "texts.csv"
    content = written(rows, ",").decode("utf8").encode("utf8", "replace")
    path.write_bytes(content)
    accounted(path, lambda: read_items(path, lenient=True), lambda: read_items(path), len(rows))


@law.cases(0.25)
@given(
    columns=st.dictionaries(
        st.sampled_from(FIELDS),
        st.one_of(
            st.lists(
                st.one_of(st.none(), TEXTS.map(lambda t: t.encode("utf8", "replace").decode())), min_size=3, max_size=3
            ),
            st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=3, max_size=3),
            st.lists(st.one_of(st.none(), st.floats()), min_size=3, max_size=3),
            st.lists(st.one_of(st.none(), st.binary(max_size=3)), min_size=3, max_size=3),
            st.lists(st.one_of(st.none(), st.datetimes()), min_size=3, max_size=3),
            st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=2)), min_size=3, max_size=3),
        ),
        min_size=1,
    )
)
def test_every_type_of_a_parquet_file_is_read_or_reported(columns: dict[str, list[Any]], ground: Path) -> None:
    path = ground / "types.parquet"
    pq.write_table(pa.table(columns), path)
    accounted(path, lambda: read_items(path, lenient=True), lambda: read_items(path), 3)


@law.cases(0.5)
@given(content=mutated([written(ROWS, ",", header=False), b"1,a,b,c,d\n2,a,b,b,b,c,d\n"]))
def test_every_row_of_the_papers_csv_is_read_or_reported(content: bytes, ground: Path) -> None:
    path = ground / "paper.csv"
    path.write_bytes(content)
    accounted(
        path, lambda: read_items(path, format="notellm", lenient=True), lambda: read_items(path, format="notellm"), None
    )


@given(data=st.data(), suffix=st.sampled_from(sorted(PAIRS)), graded=st.booleans(), negatives=st.booleans())
def test_every_row_of_a_damaged_pairs_file_is_read_or_reported(
    data: st.DataObject, suffix: str, graded: bool, negatives: bool, ground: Path
) -> None:
    path = ground / f"pairs{suffix}"
    path.write_bytes(data.draw(mutated(PAIRS[suffix])))

    def reader(lenient: bool) -> Any:
        return lambda: read_pairs(path, KNOWN, lenient=lenient, graded=graded, negatives=negatives)

    accounted(path, reader(True), reader(False), None)


@law.cases(0.2)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["query", "target", "grade", "negative", "x"]), VALUES, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_every_value_of_a_pairs_file_is_read_or_reported(rows: list[dict[str, Any]], ground: Path) -> None:
    path = ground / "pairs-of-values.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def reader(lenient: bool) -> Any:
        return lambda: read_pairs(path, KNOWN, lenient=lenient, graded=True, negatives=True)

    accounted(path, reader(True), reader(False), len(rows))


@law.cases(0.5)
@given(data=st.data(), suffix=st.sampled_from(sorted(PAIRS)))
def test_a_damaged_list_of_ids_is_read_or_refused(data: st.DataObject, suffix: str, ground: Path) -> None:
    path = ground / f"ids{suffix}"
    path.write_bytes(data.draw(mutated(PAIRS[suffix])))
    found = law.read(lambda: read_ids(path, KNOWN, lenient=True), path.name)
    assert isinstance(found, BadInput) or set(found) <= set(KNOWN)  # type: ignore[arg-type]


@law.cases(0.3)
@given(topics=st.one_of(SCALARS, VALUES, st.text(alphabet="[]\"',|; a", max_size=20)))
def test_topics_of_any_value_are_texts_or_refused(topics: Any) -> None:
    from n2kit.data.items import Item

    item = law.read(lambda: Item.of({"id": "a", "topics": topics}), "topics")
    if isinstance(item, N2kitError):
        return
    assert all(isinstance(t, str) and t for t in item.topics)
    assert len(set(item.topics)) == len(item.topics)
