"""The manifest of a bundle, and the check of the bundle's files against it; no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from n2kit.errors import BadInput
from n2kit.plugins.weights_reference import Digest, WeightsReference
from n2kit.recipe.settings import Recipe
from n2kit.utils.digests import file_digest
from n2kit.utils.files import read_json
from n2kit.utils.folders import FolderKind, differences, entries
from n2kit.utils.yaml_files import ERRORS, parse_yaml

FORMAT = 3
READABLE = (1, 2, 3)  # 1 has no list of its files, and no part by reference; 2 has a fingerprint without the parts
MANIFEST, RECIPE, README = "manifest.json", "recipe.yaml", "README.md"
DECISIVE = ("component", "kind", "distribution", "transform")  # of a part: by what its files are read
NOT_HASHED = {MANIFEST, RECIPE, README}  # what is not hashed: the recipe's settings are, and words decide nothing


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or not pure.parts:
        raise ValueError(f"{path!r} lies outside the bundle")
    return path


Kind = Annotated[str, Field(pattern="^(llm|vision|connector|fusion|loss)$")]
Inside = Annotated[str, AfterValidator(_inside)]


class Manifest(BaseModel):
    """The description of a bundle in its `manifest.json`; `fingerprint` differs whenever its vectors would.

    files: path → sha256 of all that is hashed. sources: kind → what stands in place of a part's own files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    fingerprint: str
    width: int
    parts: dict[Kind, dict[str, Any]]
    trained: dict[str, Any]
    files: dict[Inside, Digest] = {}
    sources: dict[Kind, WeightsReference] = {}


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        BadInput: the folder is no bundle, or one of a newer n2kit.
    """
    file = folder / MANIFEST
    if not file.is_file() and (folder / "run.json").is_file():
        raise BadInput(f"{folder} is a run that has made no bundle yet", "the command that began it goes on with it")
    if not file.is_file():
        raise BadInput(f"{folder} is no bundle: it has no {MANIFEST}", "n2kit build makes one")
    content = read_json(file)
    if "component" in content:
        raise BadInput(f"{folder} is no bundle, but an index", "n2kit build makes a bundle")
    if content.get("format") not in READABLE:
        hint = "update n2kit, or build it again"
        raise BadInput(f"{folder} is a bundle of format {content.get('format')}; this n2kit reads {FORMAT}", hint)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise BadInput(f"{file}: {what}", "the bundle is damaged: build or copy it again") from None


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe that a bundle was built or trained with."""
    try:
        if not (folder / RECIPE).is_file():  # a pipe would never end
            raise FileNotFoundError("it is missing, or no regular file")
        return Recipe.model_validate(parse_yaml((folder / RECIPE).read_text("utf8")))
    except (OSError, *ERRORS) as error:
        raise BadInput(
            f"{folder / RECIPE}: {str(error).splitlines()[0]}", "the bundle is damaged: build or copy it again"
        ) from None


def verify(folder: Path, manifest: Manifest, recipe: Recipe) -> None:
    """Check that a bundle's files are those that its manifest lists, and make the model that it names.

    Raises:
        BadInput: a file is missing, added or changed.
    """
    if manifest.format > 1:
        wrong, more = differences(folder, manifest.files, _names(folder))
        if wrong or more:
            count = f" ({len(wrong) + len(more)} such differences)" if len(wrong) + len(more) > 1 else ""
            hint = "build, train or copy the bundle again" if wrong else "remove what is too much"
            raise BadInput(f"{folder} is damaged: {[*wrong, *more][0]}{count}", hint)
    files = manifest.files if manifest.format > 1 else contents(folder)
    kinds = {PurePosixPath(name).parts[0] for name in files if "/" in name} | set(manifest.sources)
    if lost := sorted(kinds - set(manifest.parts)):
        hint = "build, train or copy the bundle again"
        raise BadInput(f"{folder} is damaged: its {MANIFEST} does not say what its {lost[0]} is", hint)
    parts = manifest.parts if manifest.format > 2 else {}
    if (found := model_fingerprint(recipe, files, manifest.sources, parts)) != manifest.fingerprint:
        raise BadInput(
            f"{folder} is model {found}, and its manifest says {manifest.fingerprint}",
            "it was edited or damaged: build or copy it again",
        )


def model_fingerprint(
    recipe: Recipe,
    files: Mapping[str, str],
    referred: Mapping[str, WeightsReference],
    parts: Mapping[str, Mapping[str, Any]],
) -> str:
    """Hash all that decides a bundle's vectors: every weight, every configuration, what reads them, the method's settings.

    A part by reference counts as the copy that it stands for.

    Args:
        files: path in the bundle → sha256.
        parts: as in the manifest; none for a bundle of format 2 or 1.
    """
    digest = hashlib.sha256()
    unseen: Any = {"train": True, "loss": True, "licences": True, "connector": {"tune"}}  # no vector shows them
    digest.update(json.dumps(recipe.model_dump(exclude=unseen), sort_keys=True).encode())
    copies = {f"{kind}/{name}": found for kind, source in referred.items() for name, found in source.stands_for.items()}
    for name, found in sorted({**files, **copies}.items(), key=lambda f: PurePosixPath(f[0])):
        if PurePosixPath(name).parent.name != "loss":
            digest.update(name.encode())
            digest.update(bytes.fromhex(found))
    read_by = {k: {n: facts[n] for n in DECISIVE if n in facts} for k, facts in parts.items() if k != "loss"}
    if read_by:
        digest.update(json.dumps(read_by, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def contents(folder: Path) -> dict[str, str]:
    """Hash the files of a bundle: path → sha256, without the files that decide no vector and hidden ones (`.gitattributes`)."""
    return {name: file_digest(folder / name) for name in sorted(_names(folder)) if (folder / name).is_file()}


def _names(folder: Path) -> set[str]:
    return {name for name in entries(folder) if name not in NOT_HASHED and name[0] != "."}


def _written(folder: Path) -> set[str] | None:
    """List the files that n2kit wrote into a bundle; None for a folder that is none."""
    try:
        manifest = read_manifest(folder)
        if manifest.format == 1:  # without a list: that they make the fingerprint says that nothing else is there
            verify(folder, manifest, read_recipe(folder))
    except BadInput:
        return None
    return {*NOT_HASHED, *(manifest.files if manifest.format > 1 else contents(folder))}


KIND = FolderKind("a bundle", _written)
