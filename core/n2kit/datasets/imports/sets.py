"""Public sets: how a row of each becomes an item, an event, or pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.data.columns import normal
from n2kit.data.image_source import URL
from n2kit.data.tables import kind_of
from n2kit.datasets.imports.rows import (
    ITEMS,
    TIMES,
    TOPICS,
    USERS,
    Row,
    clean,
    first,
    is_sequences,
    listed_texts,
    literal_rows,
    sequence_rows,
    table_rows,
)  # fmt: skip

Fields = dict[str, Any]
Related = tuple[tuple[str, str], ...]  # kind of pair, target


@dataclass(frozen=True)
class PublicSet:
    """A public set. item, event, related: from a row to fields (None: no such row); rows: from a file to its rows.

    event_names: of the columns of a log whose first row names none; event_lines: of one that is no table.
    """

    name: str
    summary: str
    item: Callable[[Row], Fields]
    event: Callable[[Row], Fields]
    item_rows: Callable[[Path, list[str]], Iterator[Row]] = table_rows
    related: Callable[[Row], Related] | None = None
    image_of: Callable[[str], str] | None = None  # an item's picture under --images, by its id
    event_names: tuple[str, ...] = ()
    event_lines: Callable[[Path, list[str]], Iterator[Row]] = table_rows


def _urls(images: Any) -> list[str]:
    """List the addresses of pictures, the largest of each: Amazon's lists of dicts, of texts, or a dict of lists."""
    if isinstance(images, str):
        return [images] if URL.match(images) else []
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
    """Make an item of meta_….jsonl. Source: McAuley-Lab/Amazon-Reviews-2023, README.md, dataset_info."""
    urls = _urls(row.get("images"))
    content = " ".join(filter(None, (clean(row.get("features")), clean(row.get("description")))))
    return {
        "id": row.get("parent_asin"), "title": clean(row.get("title")), "content": content, "image": next(iter(urls), ""),
        "more_images": urls[1:], "category": clean(row.get("main_category")), "topics": [clean(c) for c in row.get("categories") or []],
    }  # fmt: skip


def _amazon_2018(row: Row) -> Fields:
    """Make an item of meta_….json.gz. Source: nijianmo.github.io/amazon, Product metadata."""
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
    """Make an item of meta_….json.gz, Python literals: asin, title, imUrl, related, categories in lists, description.

    Source: jmcauley.ucsd.edu/data/amazon; the columns as enoche/MMRec, preprocessing/2reindex-feat.ipynb, shows them.
    """
    topics = listed_texts(row.get("categories"))
    return {
        "id": row.get("asin"), "title": clean(row.get("title")), "content": clean(row.get("description")), "more_images": [],
        "image": clean(row.get("imUrl")), "category": next(iter(topics), ""), "topics": topics,
    }  # fmt: skip


def _related(*names: str) -> Callable[[Row], Related]:
    def related(row: Row) -> Related:
        held = row.get("related") if isinstance(row.get("related"), dict) else row
        return tuple((name, str(target)) for name in names for target in (held or {}).get(name) or [])

    return related


def _amazon_event(row: Row) -> Fields:
    return {
        "user": first(row, "user_id", "reviewerID", "user"), "item": first(row, "parent_asin", "asin", "item"),
        "time": first(row, "timestamp", "unixReviewTime"), "rating": first(row, "rating", "overall"),
    }  # fmt: skip


def _hm_item(row: Row) -> Fields:
    """Make an item of articles.csv. Source: the data page of H&M Personalized Fashion Recommendations, on Kaggle."""
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


# English before the language of the platform, where a set has both: NineRec, PixelRec.
TITLES = ("title_en", "en_title", "title", "item_title", "cn_title", "title_cn", "name", "movie_title", "product_name")


def any_item(row: Row) -> Fields:
    """Make an item of a table whose columns have usual names.

    Sources of the names: westlake-repl/PixelRec, dataset/readme.md (item_id … title_en, title, description, tag); enoche/MMRec,
    preprocessing/2reindex-feat.ipynb (itemID, asin, title, imUrl, categories as a list in a text, description).
    """
    named = {normal(name): value for name, value in row.items()}
    return {
        "id": first(named, *map(normal, ITEMS)), "content": clean(first(named, "content", "description", "desc", "text")),
        "title": clean(first(named, *TITLES)),
        "topics": listed_texts(first(named, *TOPICS)), "category": clean(first(named, "category", "tag", "class", "genre")),
        "image": str(first(named, "image", "image_url", "cover", "cover_url", "img", "im_url", "file_name") or ""), "more_images": [],
    }  # fmt: skip


def _any_event(row: Row) -> Fields:
    return {
        "user": first(row, *USERS), "item": first(row, *ITEMS), "time": first(row, *TIMES), "rating": first(row, "rating", "score"),
    }  # fmt: skip


def event_rows(chosen: PublicSet, path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Yield the rows of a log of a set: a table, lines of its own, or lines of a user and his items."""
    if not path.name.endswith(".parquet") and path.is_file() and is_sequences(path):
        return sequence_rows(path, unreadable)
    if path.is_file() and kind_of(path) in ("json", "jsonl"):
        return chosen.event_lines(path, unreadable)
    return table_rows(path, unreadable, chosen.event_names)


def _cover(item: str) -> str:
    return f"{item}.jpg"


def _titles_microlens(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Read …_titles.csv (`item,title`), or …_title_en.csv, which has no header. Source: westlake-repl/MicroLens, README.md, News."""
    return table_rows(path, unreadable, ("item", "title"))


def _titles_ninerec(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Read …_item.csv without a header: id, title, English title.

    Source: westlake-repl/NineRec, Baseline/BERT4Rec/BERT4Rec_txt/data_utils/preprocess.py, get_df.
    """
    return table_rows(path, unreadable, ("item_id", "cn_title", "en_title"))


PAIR_NINEREC = (
    "item",
    "user",
    "timestamp",
)  # of …_pair.csv, which has no header: westlake-repl/NineRec, get_behaviour.py
# Of files of ratings alone, which have no header; of 2018 they begin with the item. Sources: the pages of both sets, "ratings only".
RATED_2014, RATED_2018 = ("user", "item", "rating", "timestamp"), ("item", "user", "rating", "timestamp")
BOUGHT_2014 = ("also_bought", "also_viewed", "bought_together", "buy_after_viewing")
SETS = {
    one.name: one
    for one in (
        PublicSet(
            "amazon-2014", "Amazon Reviews 2014", _amazon_2014, _amazon_event, literal_rows, _related(*BOUGHT_2014),
            event_names=RATED_2014, event_lines=literal_rows,
        ),
        PublicSet(
            "amazon-2018", "Amazon Reviews 2018", _amazon_2018, _amazon_event, literal_rows, _related("also_buy", "also_view"),
            event_names=RATED_2018, event_lines=literal_rows,
        ),
        PublicSet("amazon-2023", "Amazon Reviews 2023, which has no pairs", _amazon_2023, _amazon_event),
        PublicSet("microlens", "MicroLens", any_item, _any_event, _titles_microlens, image_of=_cover),
        PublicSet("ninerec", "NineRec", any_item, _any_event, _titles_ninerec, None, _cover, PAIR_NINEREC),
        PublicSet("pixelrec", "PixelRec", any_item, _any_event, image_of=_cover),
        PublicSet("hm", "H&M", _hm_item, _hm_event, image_of=lambda item: f"{item[:3]}/{item}.jpg"),
        PublicSet("recbole", "RecBole's atomic files", any_item, _any_event),
        PublicSet("mmrec", "MMRec", any_item, _any_event),
    )
}  # fmt: skip
