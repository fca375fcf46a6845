"""The saved model: a manifest, the recipe, and one folder of safetensors a part."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from n2kit import lora
from n2kit.errors import BadInput, Unavailable
from n2kit.files import check_free, move_into_place, read_json
from n2kit.manager import load_target, manager, require
from n2kit.model import Model, Parts, Provenance
from n2kit.recipe import Recipe
from n2kit.templates import Template

FORMAT = 1
MANIFEST, RECIPE, JOINT, PROMPT = "manifest.json", "recipe.yaml", "joint.safetensors", "prompt.json"


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself; `fingerprint` differs whenever its vectors would."""

    format: int
    fingerprint: str
    width: int
    parts: dict[str, dict[str, Any]]
    trained: dict[str, Any]


def save(model: Model, folder: Path, *, trained: dict[str, Any] | None = None, force: bool = False) -> Manifest:
    """Write a bundle aside and move it into place, so that no half-written one is ever seen.

    Raises:
        BadInput: something is in the way and `force` is not set.
    """
    check_free(folder, MANIFEST, force=force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        staged = Path(aside) / "bundle"
        staged.mkdir()
        for kind, part in model.parts.items():
            (staged / kind).mkdir()
            with lora.aside(part):
                part.save(staged / kind)
            if lora.adapter_of(part):
                lora.save(part, staged / kind / lora.FOLDER)
        joint = {"gain": model.gain, "words": model.words.table.weight}
        if model.recipe.head.width:
            joint["head"] = model.head.get_parameter("weight")
        save_file({k: v.detach().cpu().contiguous() for k, v in joint.items()}, staged / JOINT)
        # The wording itself, not its name: a user's template file may change or go away.
        (staged / PROMPT).write_text(
            json.dumps(asdict(model.prompter.template), ensure_ascii=False, indent=1), encoding="utf8"
        )
        (staged / RECIPE).write_text(model.recipe.to_yaml(), encoding="utf8")
        manifest = Manifest(FORMAT, fingerprint(staged), model.width, model.provenance.parts, trained or {})
        (staged / MANIFEST).write_text(json.dumps(vars(manifest), indent=1, ensure_ascii=False), encoding="utf8")
        move_into_place(staged, folder)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises BadInput if the folder is no bundle, or one of a newer n2kit."""
    file = folder / MANIFEST
    if not file.is_file():
        raise BadInput(f"{folder} is no bundle: it has no {MANIFEST}", "n2kit build makes one")
    content = read_json(file)
    if content.get("format") != FORMAT:
        way = "update n2kit, or build it again"
        raise BadInput(f"{folder} is a bundle of format {content.get('format')}; this n2kit reads {FORMAT}", way)
    try:
        return Manifest(**content)
    except TypeError as error:
        raise BadInput(
            f"{file}: {str(error).split('() ')[-1]}", "the bundle is damaged: build or copy it again"
        ) from None


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a bundle was built or trained with."""
    try:
        return Recipe.model_validate(yaml.safe_load((folder / RECIPE).read_text("utf8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise BadInput(
            f"{folder / RECIPE}: {str(error).splitlines()[0]}", "the bundle is damaged: build or copy it again"
        ) from None


def load(folder: str | Path, *, recipe: Recipe | None = None) -> Model:
    """Load a bundle: `n2kit.load("runs/my-run/bundle")`.

    Args:
        recipe: what takes the place of the bundle's own; of the model it may only change how parts are tuned.

    Raises:
        BadInput: no bundle, or a damaged one. Mismatch: parts that cannot be tuned as `recipe` says.
        Unavailable: a plug-in that it needs is not installed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if (found := fingerprint(folder)) != manifest.fingerprint:
        raise BadInput(
            f"{folder} is model {found}, and its manifest says {manifest.fingerprint}",
            "it was edited or damaged: build or copy it again",
        )
    own = read_recipe(folder)
    recipe = recipe or own
    classes = {kind: _part_class(kind, facts) for kind, facts in manifest.parts.items()}
    try:
        parts = {kind: cls.load(folder / kind) for kind, cls in classes.items()}
        for kind, part in parts.items():
            if (folder / kind / lora.FOLDER).is_dir() or getattr(getattr(own, kind), "tune", "").startswith("lora"):
                lora.load(part, folder / kind / lora.FOLDER)
        vision, transform = parts.get("vision"), manifest.parts.get("vision", {}).get("transform")
        if vision is not None and vision.transform_id != transform:
            raise ValueError(f"image transform {vision.transform_id}, the manifest says {transform}")
        template = Template(**json.loads((folder / PROMPT).read_text("utf8")))
        model = Model(Parts(**parts), recipe, Provenance(manifest.parts), template)
        joint = load_file(folder / JOINT)
        model.gain.copy_(joint["gain"])
        model.words.table.weight.data.copy_(joint["words"])
        if recipe.head.width:
            model.head.get_parameter("weight").data.copy_(joint["head"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(f"{folder} is damaged: {reason}", "build, train or copy the bundle again") from error
    return model.eval()


def merge(folder: Path, out: Path, *, force: bool = False) -> Manifest:
    """Write a bundle whose adapters have become part of its weights; its vectors are the same but for rounding.

    Raises:
        BadInput: no bundle, one without an adapter, or something in the way and `force` not set.
    """
    check_free(out, MANIFEST, force=force)
    manifest, model = read_manifest(folder), load(folder)
    held = [kind for kind, part in model.parts.items() if lora.adapter_of(part)]
    if not held:
        raise BadInput(
            f"{folder} holds no adapter: there is nothing to merge", "n2kit train --tune llm=lora:16 trains one"
        )
    frozen = {}
    for kind in held:
        lora.merge(getattr(model, kind))
        frozen[kind] = getattr(model.recipe, kind).model_copy(update={"tune": "frozen"})
    model.recipe = model.recipe.model_copy(update=frozen)
    return save(model, out, trained=manifest.trained | {"merged": manifest.fingerprint}, force=force)


def fingerprint(folder: Path) -> str:
    """A hash of all that decides a bundle's vectors: every weight, every configuration, the method's settings."""
    digest = hashlib.sha256()
    recipe = read_recipe(folder)
    unseen: Any = {"train": True, "loss": True, "licences": True, "connector": {"tune"}}  # no vector shows them
    digest.update(json.dumps(recipe.model_dump(exclude=unseen), sort_keys=True).encode())
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (RECIPE, MANIFEST)):
        if file.parent.name == "loss":
            continue
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def _part_class(kind: str, facts: dict[str, Any]) -> Any:
    name, distribution = facts["component"], facts["distribution"]
    owner_kind = facts.get("kind", kind)  # a multimodal LLM owns three parts
    for owned in manager().components(owner_kind):
        if owned.spec.name == name and owned.distribution == distribution:
            require(owned.spec, distribution)
            target = load_target(owned.spec.target, owner=distribution)
            return getattr(target, kind) if owner_kind == "mllm" else target
    raise Unavailable(
        f"the bundle's {kind} is {name!r} of the plug-in {distribution} {facts['version']}, which is not installed here",
        f"pip install {distribution}",
    )
