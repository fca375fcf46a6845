"""Parts by reference: the place of a part's weights and hashes to recognise them, stored in place of a copy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.inputs.tensor_store import quick_checksum
from n2kit.plugins.component import Component
from n2kit.plugins.weights import WeightsUri, weight_files
from n2kit.plugins.weights_reference import WeightsReference
from n2kit.utils.digests import file_digest
from n2kit.utils.files import real_path

PLACES = "N2KIT_WEIGHTS"  # llm=file:FOLDER,vision=…: where weights are now that a bundle refers to elsewhere


def of_component(component: Component, part: nn.Module, *, head: bool = False) -> WeightsReference | None:
    """Make the reference to the weights of a part that was just created from them.

    None for random weights, since others draw others, for weights with an adapter in them, and for weights in no file by which
    they could be known again.
    """
    path = component.weights.locate()
    options = component.config().model_dump(mode="json")
    if path is None or options.get("adapter") or not weight_files(path):
        return None
    return WeightsReference(
        weights=str(component.weights.pinned(path)), options=options, head=head, tensors=checksum(part)
    )


def stored_reference(source: WeightsReference, folder: Path, copy: Mapping[str, str]) -> WeightsReference:
    """Return the reference as a bundle in `folder` stores it, in place of the files `copy` (path in the part's folder → sha256)."""
    weights, near, files = WeightsUri.parse(source.weights), None, source.files
    if weights.scheme == "file":
        with contextlib.suppress(ValueError):  # on another drive of Windows
            near = os.path.relpath(weights.location, real_path(folder))
    if not files and (place := weights.locate()) is not None:  # known, they may be gone by now: a training takes days
        files = {name: file_digest(file) for name, file in weight_files(place).items()}
    return source.model_copy(update={"near": near, "files": files, "stands_for": dict(copy)})


def find(kind: str, source: WeightsReference, folder: Path, override: str | None) -> tuple[WeightsReference, Path]:
    """Locate the weights that a bundle in `folder` refers to, and check that they have not changed.

    Raises:
        Unavailable: they are not there. BadInput: they have changed.
    """
    weights = WeightsUri.parse(override or source.weights)
    beside = folder / source.near if source.near else None
    if not override and beside is not None and beside.exists() and not Path(weights.location).exists():
        weights = WeightsUri("file", str(real_path(beside)))
    what = f"the {kind} of {folder} is {weights} by reference"
    elsewhere = f"{PLACES}={kind}=file:FOLDER says where the same weights are now"
    try:
        place = weights.locate()
    except N2kitError as error:
        raise Unavailable(f"{what}: {error.message}", f"{elsewhere}; n2kit pack makes a copy that needs none") from None
    if place is None:
        raise BadInput(f"{what}, and random weights are no source", elsewhere)
    present = weight_files(place)
    if place.is_file() and len(source.files) == 1:
        present = dict.fromkeys(source.files, place)  # it may have another name elsewhere
    for name, recorded in source.files.items():
        found = file_digest(present[name]) if name in present else None
        if found != recorded:
            now = f"is {found[:16]} now" if found else "is not there any more"
            raise BadInput(
                f"{what}, which has changed: {name} was {recorded[:16]} (sha256) and {now}",
                f"bring the old files back, or build again; {elsewhere}",
            )
    return source.model_copy(update={"weights": str(weights.pinned(place))}), place


def places_from_env() -> dict[str, str]:
    """Parse `N2KIT_WEIGHTS` into part → weight source.

    Raises:
        BadInput: an entry that is not PART=SOURCE.
    """
    found = {}
    for entry in filter(None, os.environ.get(PLACES, "").split(",")):
        part, equals, weights = entry.partition("=")
        if not equals or part.strip() not in ("llm", "vision", "mllm"):
            raise BadInput(f"{PLACES}: {entry!r} is not PART=SOURCE", f"{PLACES}=llm=file:FOLDER,vision=hf:org/name")
        found[part.strip()] = str(WeightsUri.parse(weights.strip()))
    return found


def checksum(part: nn.Module) -> str:
    """Compute a part's quick checksum, which changes when it is trained."""
    return quick_checksum(part.state_dict())
