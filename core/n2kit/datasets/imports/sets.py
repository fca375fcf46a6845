"""Public sets: how a row of each becomes an item, an event, or pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.data.columns import SYNONYMS, normal
from n2kit.datasets.imports.rows import Row, clean, first, is_sequences, literal_rows, sequence_rows, table_rows

Fields = dict[str, Any]
Related = tuple[tuple[str, str], ...]  # kind of pair, target


@dataclass(frozen=True)
class PublicSet:
    """A public set. item, event, related: from a row to fields (None: no such row); rows: from a file to its rows."""

    name: str
    summary: str
    item: Callable[[Row], Fields]
    event: Callable[[Row], Fields]
    item_rows: Callable[[Path, list[str]], Iterator[Row]] = table_rows
    related: Callable[[Row], Related] | None = None
    image_of: Callable[[str], str] | None = None  # an item's picture under --images, by its id


def _urls(images: Any) -> list[str]:
    """List the addresses of pictures, the largest of each: Amazon's lists of dicts, of texts, or a dict of lists."""
    if isinstance(images, str):
        return [images] if images else []
    if isinstance(images, dict):
        sizes = [images.get(size) or [] for size in ("hi_res", "large", "thumb")]
        return [url for urls in zip(*sizes, strict=False) if (url := next(filter(None, urls), None))]
    found = []
    for image in images or []:
        url = (
            image
            if isinstance(image, str)
            else first(image, "hi_res", "large", "thumb")
            if isinstance(image, dict)
            else None
        )
        found += [url] if url else []
    return found


def _amazon_2023(row: Row) -> Fields:
    urls = _urls(row.get("images"))
    content = " ".join(filter(None, (clean(row.get("features")), clean(row.get("description")))))
    return {
        "id": row.get("parent_asin"), "title": clean(row.get("title")), "content": content, "image": next(iter(urls), ""),
        "more_images": urls[1:], "category": clean(row.get("main_category")), "topics": [clean(c) for c in row.get("categories") or []],
    }  # fmt: skip


def _amazon_2018(row: Row) -> Fields:
    urls = _urls(first(row, "imageURLHighRes", "imageURL", "image"))
    title = clean(row.get("title"))
    if "getTime" in title or len(title) > 2000:  # a script of the page, where its title was looked for
        title = ""
    content = " ".join(filter(None, (clean(row.get("feature")), clean(row.get("description")))))
    topics = [clean(c) for c in row.get("category") or []]
    return {
        "id": row.get("asin"), "title": title, "content": content, "image": next(iter(urls), ""), "more_images": urls[1:],
        "category": clean(row.get("main_cat")), "topics": [t for t in topics if t and len(t) < 100],
    }  # fmt: skip


def _amazon_2014(row: Row) -> Fields:
    paths = row.get("categories") or []
    topics = [clean(c) for path in paths for c in (path if isinstance(path, list) else [path])]
    return {
        "id": row.get("asin"), "title": clean(row.get("title")), "content": clean(row.get("description")), "more_images": [],
        "image": clean(row.get("imUrl")), "category": next(iter(topics), ""), "topics": list(dict.fromkeys(topics)),
    }  # fmt: skip


def _related(*names: str) -> Callable[[Row], Related]:
    def related(row: Row) -> Related:
        held = row.get("related") if isinstance(row.get("related"), dict) else row
        return tuple((name, str(target)) for name in names for target in (held or {}).get(name) or [])

    return related


def _amazon_event(row: Row) -> Fields:
    return {
        "user": first(row, "user_id", "reviewerID"), "item": first(row, "parent_asin", "asin"),
        "time": first(row, "timestamp", "unixReviewTime"), "rating": first(row, "rating", "overall"),
    }  # fmt: skip


def _hm_item(row: Row) -> Fields:
    kinds = [
        clean(row.get(n)) for n in ("product_type_name", "product_group_name", "colour_group_name", "department_name")
    ]
    return {
        "id": _hm_id(row.get("article_id")), "title": clean(row.get("prod_name")), "content": clean(row.get("detail_desc")),
        "topics": list(dict.fromkeys(filter(None, kinds))), "category": clean(row.get("product_group_name")),
    }  # fmt: skip


def _hm_id(value: Any) -> str:
    """Return an article's id with its leading zero, which whoever reads it as a number loses."""
    text = str(value if value is not None else "").strip()
    return text.zfill(10) if text.isdecimal() else text


def _hm_event(row: Row) -> Fields:
    return {
        "user": row.get("customer_id"),
        "item": _hm_id(row.get("article_id")),
        "time": row.get("t_dat"),
        "rating": None,
    }


USERS, TIMES = ("user", "user_id", "userid", "userID"), ("timestamp", "time", "ts")
ITEMS = ("item", "item_id", "itemid", "itemID", *SYNONYMS["id"], "id")


TITLES = ("title", "item_title", "en_title", "title_en", "cn_title", "title_cn", "name", "movie_title", "product_name")


def any_item(row: Row) -> Fields:
    """Make an item of a table whose columns have usual names."""
    named = {normal(name): value for name, value in row.items()}
    topics = first(named, "topics", "tags", "tag", "keywords", "genre", "genres", "categories")
    listed = topics if isinstance(topics, list) else str(topics or "").replace("|", ",").split(",")
    return {
        "id": first(named, *map(normal, ITEMS)), "content": clean(first(named, "content", "description", "desc", "text")),
        "title": clean(first(named, *TITLES)),
        "topics": [t for t in map(clean, listed) if t], "category": clean(first(named, "category", "tag", "class", "genre")),
        "image": str(first(named, "image", "image_url", "cover", "cover_url", "img", "file_name") or ""), "more_images": [],
    }  # fmt: skip


def _any_event(row: Row) -> Fields:
    return {
        "user": first(row, *USERS), "item": first(row, *ITEMS), "time": first(row, *TIMES), "rating": first(row, "rating", "score"),
    }  # fmt: skip


def event_rows(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Yield the rows of a log: a table, or lines of a user and his items."""
    if not path.name.endswith(".parquet") and path.is_file() and is_sequences(path):
        return sequence_rows(path, unreadable)
    return table_rows(path, unreadable)


def _cover(item: str) -> str:
    return f"{item}.jpg"


BOUGHT_2014 = ("also_bought", "also_viewed", "bought_together", "buy_after_viewing")
SETS = {
    one.name: one
    for one in (
        PublicSet(
            "amazon-2014", "Amazon Reviews 2014", _amazon_2014, _amazon_event, literal_rows, _related(*BOUGHT_2014)
        ),
        PublicSet(
            "amazon-2018",
            "Amazon Reviews 2018",
            _amazon_2018,
            _amazon_event,
            literal_rows,
            _related("also_buy", "also_view"),
        ),
        PublicSet("amazon-2023", "Amazon Reviews 2023, which has no pairs", _amazon_2023, _amazon_event),
        PublicSet("microlens", "MicroLens", any_item, _any_event, image_of=_cover),
        PublicSet("ninerec", "NineRec", any_item, _any_event, image_of=_cover),
        PublicSet("pixelrec", "PixelRec", any_item, _any_event, image_of=_cover),
        PublicSet("hm", "H&M", _hm_item, _hm_event, image_of=lambda item: f"{item[:3]}/{item}.jpg"),
        PublicSet("recbole", "RecBole's atomic files", any_item, _any_event),
        PublicSet("mmrec", "MMRec", any_item, _any_event),
    )
}
