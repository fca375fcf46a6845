"""The options of every command that reads items: one group, and what is said about the file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from n2kit_cli import options
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
    item_format: options.Format = options.ItemFormat.auto
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
    fetch_images: Annotated[
        Path | None,
        typer.Option("--fetch-images", file_okay=False, help="Download images that are URLs into this folder, once."),
    ] = None
    fetch_private: Annotated[
        bool, typer.Option("--fetch-private", help="Download from private addresses, too: of this machine or network.")
    ] = False

    reads_text: bool = field(default=True, init=False)  # the model that the catalogue was read for

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
        return found

    def pairs(self, file: Path, known: Container[str], *, graded: bool = False, negatives: bool = False) -> Pairs:
        """Read pairs of `known` ids as the same flags say."""
        return options.read_pairs(
            file, known, self.lenient, graded=graded, negatives=negatives, renames=self.renames, encoding=self.encoding
        )

    def _fetch(self, found: Items) -> None:
        """Fetch the images that are URLs, if that is wanted; and choose the folder of images."""
        from n2kit.data.fetch import fetch_images
        from n2kit.data.image_source import URL, stored_folder
        from n2kit.errors import BadInput, truncate_list

        if self.images is None and any(item.image.startswith("content:") for item in found):
            self.images = stored_folder()  # out of a Parquet file's cells
        if self.fetch_images is None:
            return
        if self.images not in (None, stored_folder(), self.fetch_images):
            hint = f"--images {self.images} --fetch-images {self.images}, or one of them"
            raise BadInput("--images and --fetch-images name two folders, and images are looked for in one", hint)
        self.images = self.fetch_images
        owners = {item.image: item.id for item in found if URL.match(item.image)}
        with progress("fetch") as bar:
            failed = fetch_images(owners, self.images, private=self.fetch_private, progress=bar)
        say(f"{len(owners) - len(failed):,} of {len(owners):,} images are in {self.images}")
        if failed:
            reasons = [f"item {owners[url]!r}: {url}: {reason}" for url, reason in failed.items()]
            say(f"{len(failed):,} could not be fetched: {truncate_list(reasons)}")

    def skipped(self, reasons: dict[str, str], found: Items, out: Path | None = None) -> dict[str, int]:
        """Report the items that were used without their image, or not at all; write them all to `OUT.skipped.csv`.

        Return how many were skipped, and how many were read as text only.
        """
        text_only = options.OnBadImage.text_only is self.on_bad_image and self.reads_text
        kept = [i for i in reasons if text_only and i in found and found[i].has_text]
        counts = {"skipped": len(reasons) - len(kept), "text_only": len(kept)}
        options.report_skipped(reasons, counts, out)
        return counts


def reads_items(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Reading` in place of its parameter `reading`."""
    hints = get_type_hints(Reading, include_extras=True)
    signature = inspect.signature(command, eval_str=True)
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

    @wraps(command)
    def with_group(**given: Any) -> None:
        chosen = {one.name: given.pop(one.name) for one in fields(Reading) if one.init}
        command(reading=Reading(**chosen), **given)

    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += group if name == "reading" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    with_group.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_group.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return with_group
