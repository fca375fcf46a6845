"""The options of every command that reads items: one group, and what is said about the file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from n2kit_cli import options
from n2kit_cli.option_groups import with_options
from n2kit_cli.output import say
from n2kit_cli.progress import progress

if TYPE_CHECKING:
    from n2kit.data.items import Items
    from n2kit.data.pairs import Pairs


@dataclass
class Reading:
    """Items and how they are read, as the flags say."""

    items: options.ItemsFile
    images: options.Images = None
    item_format: options.Format = options.AUTO
    renames: options.Map = None
    encoding: options.Encoding = None
    lenient: options.Lenient = False
    on_bad_image: options.BadImage = options.OnBadImage.error
    allow_no_images: Annotated[
        bool, typer.Option("--allow-no-images", help="Go on where no item has a picture, and the model reads pictures.")
    ] = False
    allow_no_texts: Annotated[
        bool, typer.Option("--allow-no-texts", help="Go on where no item has a text, and the model reads texts.")
    ] = False
    fetch_images: options.FetchImages = None
    fetch_private: Annotated[
        bool, typer.Option("--fetch-private", help="Download from private addresses, too: of this machine or network.")
    ] = False

    reads_text: bool = field(default=True, init=False)  # the model that the catalogue was read for
    dropped: list[str] = field(default_factory=list, init=False)  # rows of any file, that were read leniently

    def catalogue(self, variant: str) -> Items:
        """Read the items for a model of a variant, say what they have, and fetch the images that are URLs.

        Raises:
            BadInput: what `read_items` raises; no item has what the variant reads.
        """
        from n2kit.data.modalities import check_modalities
        from n2kit.recipe.variants import SPECS

        found = options.read(self.items, self.item_format, self.renames, self.lenient, self.encoding)
        reads = SPECS[variant]
        check_modalities(
            found, self.items, f"variant {variant}", images=reads.image, texts=reads.text,
            allow_no_images=self.allow_no_images, allow_no_texts=self.allow_no_texts,
        )  # fmt: skip
        if reads.image:
            self._fetch(found)
        self.reads_text = reads.text
        self.dropped += found.dropped
        return found

    def pairs(self, file: Path, known: Container[str], *, graded: bool = False, negatives: bool = False) -> Pairs:
        """Read pairs of `known` ids as the same flags say."""
        found = options.read_pairs(
            file, known, self.lenient, graded=graded, negatives=negatives, renames=self.renames, encoding=self.encoding
        )
        self.dropped += found.dropped
        return found

    def _fetch(self, found: Items) -> None:
        """Fetch the images that are URLs, if that is wanted; and choose the folder of images."""
        from n2kit.data.fetched import fetched_folder

        with progress("fetch") if self.fetch_images else nullcontext() as bar:
            self.images, notes = fetched_folder(
                found, self.images, self.fetch_images, private=self.fetch_private, progress=bar
            )
        for note in notes:
            say(note)

    def skipped(self, reasons: dict[str, str], found: Items, out: Path | None = None) -> dict[str, int]:
        """Report the items that were used without their image, or not at all; write them all, and the rows that were dropped, to
        `OUT.skipped.csv`.

        Return how many were skipped, and how many were read as text only.
        """
        text_only = options.OnBadImage.text_only is self.on_bad_image and self.reads_text
        kept = [i for i in reasons if text_only and i in found and found[i].has_text]
        counts = {"skipped": len(reasons) - len(kept), "text_only": len(kept)}
        options.report_skipped(reasons, counts, out, self.dropped)
        return counts


def reads_items(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Reading` in place of its parameter `reading`."""
    hints = get_type_hints(Reading, include_extras=True)
    group = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(Reading)
        if one.init
    ]
    return with_options("reading", group, lambda given: Reading(**given))(command)
