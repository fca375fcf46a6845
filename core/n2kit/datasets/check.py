"""A data folder looked through: what is read, what would break a training, what is odd; in numbers, and as a page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.data.column_map import ENCODING
from n2kit.data.folder import IMAGES, data_file, has_pictures, needed_file, passed_over
from n2kit.data.image_source import URL, needs_folder
from n2kit.data.images import UnreadableImage, open_image
from n2kit.data.items import Item, Items, read_items
from n2kit.data.modalities import check_modalities
from n2kit.data.pairs import Pairs, likely_ids, read_ids, read_pairs
from n2kit.data.tables import is_text
from n2kit.datasets.check_texts import text_table, token_table
from n2kit.datasets.leaks import find_leaks, same_items
from n2kit.datasets.split import components
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.pages.neighbours import Figure, figure_of
from n2kit.pages.render import render
from n2kit.recipe.prompt_templates import load_template
from n2kit.utils.files import write_text
from n2kit.utils.version import VERSION

if TYPE_CHECKING:
    from n2kit.modeling.prompts import PromptBuilder

SAMPLED, SHOWN = 1000, 18  # pictures that are opened, and pairs that the page shows
SMALL, FLAT = 32, 2.0  # pixels of a side, and the spread of a picture of one colour
PARTS = ("pairs", "train", "val", "test")


@dataclass
class Checked:
    """The result of a check: tables of (what, value), what would break a training, and every picture that cannot be read, with why.

    refused: the files of pairs and ids of which nothing can be used. read: what the items have, as every command that reads them says.
    """

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def check(
    folder: Path, *, every_image: bool = False, seed: int = 0, html: Path | None = None,
    columns: Mapping[str, str] | None = None, pair_columns: Mapping[str, str] | None = None,
    item_format: str = "auto", encoding: str | None = None,
    template: str = "en", builder: PromptBuilder | None = None, progress: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] | None = None,
) -> Checked:  # fmt: skip
    """Look through the items, pairs and pictures of a data folder.

    Args:
        every_image: open all pictures, and not a sample of 1,000. html: a page to write, with example pairs.
        columns, pair_columns: of the items and of the pairs, as `--map` names them. item_format, encoding: as for `read_items`.
        template: whose text rules are applied. builder: of a model whose tokens are counted; its own template counts.
        notify: is told in one line what was read of the items.

    Raises:
        BadInput: there is no such folder, no items file in it, or nothing in that can be used.
    """
    found = Checked()
    images = data_file(folder, "images")
    items = read_items(
        file := needed_file(folder, "items"), columns=columns, format=item_format, lenient=True, encoding=encoding
    )
    if notify:
        notify(items.summary())
    found.read = items.facts()
    found.odd += [*items.notes, *passed_over(folder)]
    _items(found, items, file, columns or {})
    _texts(found, items, template, builder, progress)
    _images(found, items, folder, every_image, seed, progress)
    pairs: dict[str, Pairs] = {}
    for name in PARTS:
        with _listed(found, name):
            if (of_pairs := data_file(folder, name)) is not None:
                pairs[name] = read_pairs(of_pairs, items, columns=pair_columns, lenient=True, encoding=encoding)
                found.odd += [note for note in pairs[name].notes if note not in found.odd]
                _pairs(found, name, pairs[name], items)
    with _listed(found, "pool"):
        if (pool := data_file(folder, "pool")) is not None:
            _pool(found, set(read_ids(pool, items, lenient=True, encoding=encoding)), pairs)
    _sides(found, pairs, items, images)
    if html is not None:
        _write_page(html, found, items, images, next(iter(pairs.values()), None), seed)
    return found


def named_columns(
    folder: Path, columns: Mapping[str, str], pair_columns: Mapping[str, str], encoding: str | None = None
) -> dict[str, dict[str, str]]:
    """List columns of a data folder's items and pairs, and the texts' encoding, by file, as `columns.yaml` holds them.

    Raises:
        BadInput: the folder has no file that they are of.
    """
    named = {"items": columns, **dict.fromkeys(PARTS, pair_columns), "pool": {}}
    files = {file: own for name, own in named.items() if (file := data_file(folder, name)) is not None}
    texts = {} if encoding is None else {file: {ENCODING: encoding} for file in files if is_text(file)}
    found = {file.name: {**own, **texts.get(file, {})} for file, own in files.items()}
    if not any(found.values()):
        what = f"{folder} has no file that --map or --encoding is of: there is nothing to write"
        raise BadInput(what, "--encoding is of texts, such as .csv and .jsonl; Parquet has one of its own")
    return {name: own for name, own in found.items() if own}


@contextmanager
def _listed(found: Checked, name: str) -> Iterator[None]:
    """List a file of which nothing can be used as what would break a training: the rest of the folder is looked through, too."""
    try:
        yield
    except BadInput as problem:
        found.refused.append(name)
        found.broken.append(f"{name}: {problem.message}" + f" ({problem.hint})" * bool(problem.hint))


def _items(found: Checked, items: Items, file: Path, asked: Mapping[str, str]) -> None:
    count = items.counts()
    table: dict[str, Any] = {"items": len(items)} | {f"with {name}": number for name, number in count.items()}
    table["picture and text"] = sum(bool(i.image) and i.has_text for i in items)
    table["neither"] = sum(not i.image and not i.has_text for i in items)
    table["columns read"] = (
        ", ".join(f"{column} as {name}" for name, column in ({**asked} | items.columns).items()) or "by their own names"
    )
    table["columns not read"] = ", ".join(items.unread) or "none"
    found.tables["items"] = table
    if items.dropped:
        found.broken.append(
            f"{counted(len(items.dropped), 'row')} of the items cannot be used: {truncate_list(items.dropped)}"
        )
    try:
        check_modalities(items, file, "", images=True, texts=True, allow_no_images=True, allow_no_texts=True)
    except BadInput as problem:
        found.broken.append(f"{problem.message} ({problem.hint})")
        return
    if table["neither"]:
        found.odd.append(f"{counted(table['neither'], 'item')} with neither a picture nor a text")


def _texts(
    found: Checked, items: Items, template: str, builder: PromptBuilder | None,
    progress: Callable[[int, int], None] | None,
) -> None:  # fmt: skip
    rules = load_template(template) if builder is None else builder.template
    if table := text_table(items, rules, template if builder is None else "of the model"):
        found.tables["texts"] = table
    if builder is None:
        return
    found.tables["prompts"] = table = token_table(items, builder, progress)
    if cut := table["items that are cut"]:
        found.odd.append(
            f"{counted(cut, 'item')} longer than the model's prompt: content is cut first (prompt.body_tokens)"
        )


def _images(
    found: Checked,
    items: Items,
    folder: Path,
    every: bool,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    images = data_file(folder, "images")
    having = [item for item in items if item.image]
    if not every and len(having) > SAMPLED:
        drawn = np.random.default_rng(seed).choice(len(having), SAMPLED, replace=False)
        having = [having[n] for n in sorted(drawn.tolist())]
    kinds: Counter[str] = Counter()
    lost: list[Item] = []
    for n, item in enumerate(having, 1):
        try:
            kinds[_oddness(item, images)] += 1
        except UnreadableImage as problem:
            found.unreadable.append(problem.message)
            lost.append(item)
        if progress:
            progress(n, len(having))
    table: dict[str, Any] = {"looked at": len(having), "cannot be read": len(found.unreadable)}
    found.tables["pictures"] = table | {name: number for name, number in sorted(kinds.items()) if name}
    if found.unreadable:
        some = truncate_list(found.unreadable)
        more = " (--json lists all)" if some.endswith("…") else ""
        ways = "; ".join(_ways(lost, folder, images))
        hint = f" ({ways})" if ways else ""
        found.broken.append(f"{counted(len(found.unreadable), 'picture')} cannot be read: {some}{more}{hint}")
    if strange := sum(number for name, number in kinds.items() if name):
        found.odd.append(
            f"{counted(strange, 'picture')} that may be placeholders: of one colour, or under {SMALL} pixels"
        )


def _ways(lost: Sequence[Item], folder: Path, images: Path | None) -> Iterator[str]:
    """Yield what can be done where pictures of a data folder are not found."""
    if any(URL.match(item.image) for item in lost):
        yield f"--fetch-images {folder / IMAGES} of n2kit fit and embed downloads those that are URLs"
    if images is None and any(needs_folder(item.image) for item in lost):
        yield f"a data folder's pictures are in {folder / IMAGES}, which is not there"
        folders = (one for one in sorted(folder.iterdir()) if one.is_dir() and os.access(one, os.R_OK | os.X_OK))
        if (pictures := next(filter(has_pictures, folders), None)) is not None:
            yield f"{pictures.name}/ has pictures: rename it, or ln -s {pictures.name} {folder / IMAGES}"


def _oddness(item: Item, images: Path | None) -> str:
    image = open_image(item, images)
    if min(image.size) < SMALL:
        return f"under {SMALL} pixels"
    image.thumbnail((64, 64))
    return "of one colour" if float(np.asarray(image, np.float32).std(axis=(0, 1)).max()) < FLAT else ""


def _pairs(found: Checked, name: str, pairs: Pairs, items: Items) -> None:
    degree = Counter(i for pair in pairs for i in pair)
    ends = np.array([(items.position[a], items.position[b]) for a, b in pairs], np.int64)
    label = components(len(items), ends)[ends[:, 0]]
    sizes = np.unique(label, return_counts=True)[1]
    ranked = np.sort(np.array(list(degree.values())))[::-1]
    found.tables[name] = {
        "pairs": len(pairs), "distinct": len(set(pairs)), "items": len(degree), "most pairs of an item": int(ranked[0]),
        "share of the most popular 1 %": f"{ranked[: max(1, len(ranked) // 100)].sum() / ranked.sum():.0%}",
        "components": len(sizes), "largest component": f"{sizes.max() / len(pairs):.0%} of the pairs",
    }  # fmt: skip
    if pairs.dropped:
        likely = likely_ids(pairs.strange, items)
        found.broken.append(
            f"{name}: {counted(len(pairs.dropped), 'row')} cannot be used: {likely}{truncate_list(pairs.dropped)}"
        )


def _pool(found: Checked, pool: set[str], pairs: dict[str, Pairs]) -> None:
    missing = {b for _, b in pairs["test"] if b not in pool} if "test" in pairs else set()
    found.tables["pool"] = {"items": len(pool), "test targets that are not in it": len(missing)}
    if missing:
        found.broken.append(
            f"{counted(len(missing), 'test target')} are not in the pool: {truncate_list(sorted(missing))}"
        )


def _sides(found: Checked, pairs: dict[str, Pairs], items: Items, images: Path | None) -> None:
    """Count what is the same twice in the catalogue, and on two sides of the split."""
    groups = same_items(items, images)
    found.tables["the same twice"] = {f"groups of the {kind}": len(ones) for kind, ones in groups.items()}
    parts: dict[str, set[str]] = {
        name: {i for pair in pairs[name] for i in pair} for name in ("train", "val", "test") if name in pairs
    }
    if len(parts) < 2:
        return
    leaks = find_leaks(parts, items, images, groups)
    again = {tuple(sorted(p)) for p in pairs.get("train", ())} & {tuple(sorted(p)) for p in pairs.get("test", ())}
    found.tables["on two sides of the split"] = {
        kind: len(leaks.get(kind, ())) for kind in ("same id", "same image", "same text")
    }
    found.tables["on two sides of the split"]["same pair"] = len(again)
    if again:
        found.broken.append(f"{counted(len(again), 'pair')} of the test are in train, too")
    if leaks:
        found.odd.append("items on two sides of the split: usual in a split by time, and a leak in any other")


def _write_page(html: Path, found: Checked, items: Items, images: Path | None, pairs: Pairs | None, seed: int) -> None:
    drawn: list[tuple[Figure, list[Figure]]] = []
    if pairs is not None:
        order = np.random.default_rng(seed).permutation(len(pairs))[:SHOWN]
        drawn = [
            (figure_of(items[pairs.pairs[n][0]], images), [figure_of(items[pairs.pairs[n][1]], images)])
            for n in order.tolist()
        ]
    source = resources.files("n2kit.pages").joinpath("templates/check.html.j2").read_text("utf8")
    write_text(
        html, render(source, tables=found.tables, broken=found.broken, odd=found.odd, pairs=drawn, version=VERSION)
    )


def rows_of(tables: dict[str, dict[str, Any]]) -> Iterable[tuple[str, str, Any]]:
    """Yield the rows of all tables: of what, what, value."""
    for title, table in tables.items():
        yield from ((title, name, f"{value:,}" if isinstance(value, int) else value) for name, value in table.items())
