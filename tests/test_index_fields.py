"""Fields of an index keep to the columns that they were read from, and never take a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2kit.contract.store import Comparison
from n2kit.data.item_stream import ItemStream
from n2kit.errors import BadInput
from n2kit.index.facts import LONGEST, Facts, load_facts, read_facts, without_ids, write_facts
from n2kit.index.where import parse
from n2kit.serve.columns import divided, facts_of, without_id

LONG = "long " * LONGEST


def texts(*values: str) -> np.ndarray:
    return np.array(values, object)


def read(folder: Path, content: str, index: Facts | None = None, **columns: str) -> Facts:
    (folder / "items.csv").write_text(content)
    return read_facts(ItemStream(folder / "items.csv", columns=columns, every_column=True), index)


@pytest.mark.parametrize(
    ("file", "sent", "own"),
    [
        ("id,title,sku\na,x,s1\n", {"id": "n", "title": "t"}, {"title": "t"}),
        ("id,title,sku\na,x,s1\n", {"id": "n", "sku": "s2"}, {"sku": "s2"}),
        (f"id,content,desc\na,{LONG},short\n", {"id": "n", "content": "my text"}, {}),
        (f"id,content,desc\na,{LONG},short\n", {"id": "n", "content": "my text", "desc": "d"}, {"desc": "d"}),
        ("SKU,desc\na,short\n", {"sku": "n", "content": "my text"}, {"desc": "my text"}),
        ("Nr,title\na,x\n", {"Nr": "n", "title": "t"}, {"title": "t"}),
        ("Nr,id,title\na,1,x\n", {"Nr": "n", "id": 7, "title": "t"}, {"id": 7, "title": "t"}),
    ],
)
def test_an_item_that_is_put_in_has_its_fields_in_their_columns_alone(
    file: str, sent: dict[str, Any], own: dict[str, Any], tmp_path: Path
) -> None:
    fields, columns = divided(sent, read(tmp_path, file, **({"id": "Nr"} if "Nr" in sent else {})), "items.0")
    assert (fields["id"], columns) == ("n", own)


def test_an_item_without_the_id_of_the_index_hears_what_it_is_called(tmp_path: Path) -> None:
    index = read(tmp_path, "Nr,id,title\na,1,x\n", id="Nr")
    assert "id" not in divided({"id": "7", "title": "t"}, index, "items.0")[0]
    assert without_id({"id": "7"}, index, "items.0").hint == "it has: id; the id of this index is 'Nr'"
    assert without_id({}, None, "items.0").hint == "it has: nothing"


@pytest.mark.parametrize(
    ("before", "after", "field", "column"),
    [
        ("id,Kategorie\na,x\n", "id,category,Kategorie\nb,y,z\n", "category", "Kategorie"),
        ("sku,title\na,x\n", "id,sku,title\n1,b,y\n", "id", "sku"),
        ("id,name\na,x\n", "id,title,name\nb,y,z\n", "title", "name"),
    ],
)
def test_a_field_that_may_be_either_of_two_columns_is_asked_about(
    before: str, after: str, field: str, column: str, tmp_path: Path
) -> None:
    index = read(tmp_path, before, **{field: column})
    with pytest.raises(BadInput, match=f"'{field}' and '{column}' are both its {field}") as caught:
        read(tmp_path, after, index)
    assert f"--map {field}={column}" in (caught.value.hint or "")
    newer = read(tmp_path, after, index, **{field: column})
    assert newer.fields[field] == column


def test_a_long_text_of_a_field_is_in_no_column(tmp_path: Path) -> None:
    known = read(tmp_path, "id,desc,product_type\na,short,x\n")
    made = facts_of({"n": divided({"id": "n", "content": LONG}, known, "items.0")[1]}, [LONG], known)
    assert made is not None
    assert {name: column.tolist() for name, column in made.columns.items()} == {"desc": [""], "product_type": [""]}


def test_columns_of_other_ids_stay_apart(tmp_path: Path) -> None:
    index, newer = read(tmp_path, "id,title,sku\na,x,s1\n"), read(tmp_path, "id,title,asin\nb,y,A1\n")
    write_facts(index.with_newer(newer, ["a", "b"]), tmp_path)
    found = load_facts(tmp_path)
    assert found is not None
    assert {name: column.tolist() for name, column in found.columns.items()} == {
        "title": ["x", "y"], "sku": ["s1", ""], "asin": ["", "A1"]
    }  # fmt: skip
    assert found.fields == {"id": "id", "title": "title"}


@pytest.mark.parametrize(
    ("file", "mapped", "condition", "column"),
    [
        ("id,Kategorie,product_type\na,chair,x\n", {"category": "Kategorie"}, "category = 'chair'", "Kategorie"),
        ("id,Kategorie\na,chair\n", {"category": "Kategorie"}, "product_type = 'chair'", "Kategorie"),
        ("id,product_type\na,chair\n", {}, "category = 'chair'", "product_type"),
        ("SKU,price\na,3\n", {}, "SKU = 'a'", "id"),
        ("Artikel,price\na,3\n", {"id": "Artikel"}, "Artikel = 'a'", "id"),
        ("id,sku\na,b\n", {}, "sku = 'b'", "sku"),
        (f"id,content,desc\na,{LONG},b\n", {}, "content = 'b'", None),
    ],
)
def test_a_condition_is_on_the_column_of_the_field(
    file: str, mapped: dict[str, str], condition: str, column: str | None, tmp_path: Path
) -> None:
    facts = read(tmp_path, file, **mapped)
    columns = facts.columns | {"id": texts(*facts.ids)}
    if column is None:
        with pytest.raises(BadInput, match="no column content"):
            parse(condition, columns, facts.fields)
    else:
        asked = parse(condition, columns, facts.fields)
        assert isinstance(asked, Comparison)
        assert asked.field == column


@pytest.mark.parametrize("value", ["12.50", "1e3"])
def test_a_field_keeps_the_type_of_its_column_whatever_the_file_calls_it(value: str, tmp_path: Path) -> None:
    index = read(tmp_path, "id,Kategorie\na,chair\n", category="Kategorie")
    newer = read(tmp_path, f"id,category\nb,{value}\n", index)
    assert index.with_newer(newer, ["a", "b"]).columns["Kategorie"].tolist() == ["chair", value]


@pytest.mark.parametrize(
    ("column", "fields", "is_id"),
    [
        (texts("00001", "2"), {}, True),
        (texts("00001", ""), {}, True),  # of items that were put in since
        (np.array([1.0, 2.0]), {}, True),
        (texts("s1", "s2"), {}, False),
        (texts("", ""), {}, False),
        (texts("00001", "2"), {"id": "id"}, False),
        (texts("", ""), {"id": "SKU"}, True),
        (texts("s1", "s2"), {"id": "SKU"}, False),
    ],
)
def test_the_id_column_of_an_index_of_before_is_the_ids(
    column: np.ndarray, fields: dict[str, str], is_id: bool
) -> None:
    facts = without_ids(Facts(["00001", "2"], {"SKU": column, "price": np.array([1.0, 2.0])}, fields))
    assert list(facts.columns) == (["price"] if is_id else ["SKU", "price"])
    asked = parse(
        "SKU = '2'" if column.dtype.kind != "f" or is_id else "SKU = 2",
        facts.columns | {"id": texts(*facts.ids)},
        facts.fields,
    )
    assert isinstance(asked, Comparison)
    assert asked.field == ("id" if is_id else "SKU")


@pytest.mark.parametrize(("typed", "kinds"), [(True, "fO"), (False, "Of")])
def test_a_column_whose_items_have_gone_keeps_its_type_in_a_store_alone(typed: bool, kinds: str) -> None:
    known = Facts(["a"], {"price": np.array([np.nan]), "shelf": texts("")})
    made = facts_of({"n": {"price": "7", "shelf": 7}}, [""], known, typed=typed)
    assert made is not None
    assert "".join(column.dtype.kind for column in made.columns.values()) == kinds
