"""The folder of a catalogue's images, after those that are URLs were fetched into it."""

from __future__ import annotations

from pathlib import Path

from n2kit.data.fetch import Progress, fetch_images
from n2kit.data.image_source import URL, stored_folder
from n2kit.data.items import Items
from n2kit.errors import BadInput, truncate_list


def fetched_folder(
    items: Items, images: Path | None, fetch: Path | None, *, private: bool = False, progress: Progress | None = None
) -> tuple[Path | None, list[str]]:
    """Fetch the images that are URLs into `fetch`, if there is one; return the folder of all images, and what to say.

    Args:
        images: the folder that was named for images. private: as for `fetch_images`.

    Raises:
        BadInput: two folders are named, and images are looked for in one.
    """
    if images is None and any(item.image.startswith("content:") for item in items):
        images = stored_folder()  # out of a Parquet file's cells
    if fetch is None:
        return images, []
    if images not in (None, stored_folder(), fetch):
        hint = f"--images {images} --fetch-images {images}, or one of them"
        raise BadInput("--images and --fetch-images name two folders, and images are looked for in one", hint)
    owners = {item.image: item.id for item in items if URL.match(item.image)}
    failed = fetch_images(owners, fetch, private=private, progress=progress)
    notes = [f"{len(owners) - len(failed):,} of {len(owners):,} images are in {fetch}"]
    if failed:
        reasons = [f"item {owners[url]!r}: {url}: {reason}" for url, reason in failed.items()]
        notes.append(f"{len(failed):,} could not be fetched: {truncate_list(reasons)}")
    return fetch, notes
