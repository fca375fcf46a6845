"""Titles and pages: the items as people see them, in the commands that show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit_cli import options
from n2kit_cli.output import say
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs
    from n2kit.embed.encode import Encoded
    from n2kit.embed.vectors_file import Vectors
    from n2kit.index import Titles
    from n2kit.index.facts import Facts


def read_titles(
    items: Path | None,
    images: Path | None,
    item_format: str,
    renames: list[str] | None,
    lenient: bool,
    encoding: str | None,
    facts: Facts | None = None,
) -> Titles | None:
    """Read the items whose titles and pictures are to be shown; None without --items. `facts`: their columns that are kept."""
    if items is None:
        return None
    from n2kit.index import Titles

    kept = () if facts is None else facts.columns.keys()
    return Titles(options.read(items, item_format, renames, lenient, encoding, kept), images)


def check_page(html: Path | None, *given: Path | None) -> None:
    """Check before any work that --html may be written."""
    if html is not None:
        from n2kit.pages import ensure_page

        ensure_page(html, given)


def write_page(
    html: Path,
    vectors: Vectors | Encoded,
    pairs: Iterable[tuple[str, str]],
    items: Items,
    images: Path | None,
    sentences: Iterable[str],
    seed: int,
) -> None:
    """Write the page of test queries and their neighbours among all vectors, with sentences on top."""
    from n2kit.pages import draw_examples, write_neighbours

    examples, farthest = draw_examples(vectors.ids, vectors.vectors, pairs, seed)
    write_neighbours(html, items, images, examples, farthest, sentences=list(filter(None, sentences)), seed=seed)


@dataclass(frozen=True)
class Page:
    """The page that --html asks a command for which makes a model: its items, and the pairs of which the queries are."""

    file: Path
    items: Items
    pairs: Pairs | None
    images: Path | None
    on_bad_image: options.OnBadImage
    device: str | None

    def write(self, bundle: str, seed: int, sentence: str) -> None:
        """Write the page of a bundle, with a sentence on top."""
        from n2kit.pages.of_model import write_model_page

        with progress("page") as bar:
            write_model_page(
                self.file, Path(bundle), self.items, self.pairs or (), images=self.images,
                on_bad_image=self.on_bad_image.value, device=self.device, seed=seed, sentences=[sentence], progress=bar,
            )  # fmt: skip
        say(f"wrote {self.file}")
