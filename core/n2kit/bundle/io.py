"""Reading and writing of bundles: a manifest, the recipe, and one folder of safetensors for each part, or a reference."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from n2kit.bundle import references
from n2kit.bundle.manifest import FORMAT, KIND, README, RECIPE, Manifest, contents, model_fingerprint, verify
from n2kit.bundle.manifest import MANIFEST as MANIFEST
from n2kit.bundle.manifest import read_manifest as read_manifest
from n2kit.bundle.manifest import read_recipe as read_recipe
from n2kit.bundle.readme import readme
from n2kit.contract.interfaces import LoadSpec, Part
from n2kit.errors import BadInput, Failed, N2kitError, Unavailable
from n2kit.modeling import lora
from n2kit.modeling.model import Model, Parts, Provenance
from n2kit.plugins.blame import blaming
from n2kit.plugins.manager import RegisteredComponent, load_target, manager, require
from n2kit.plugins.weights_reference import WeightsReference
from n2kit.recipe.prompt_templates import Template
from n2kit.recipe.settings import Recipe
from n2kit.recipe.tuning import ADAPTED
from n2kit.utils.collector import collector_paused
from n2kit.utils.digests import folder_digests
from n2kit.utils.files import disk_full_guard, read_json
from n2kit.utils.folders import atomic_dir, bundle_folder, ensure_writable
from n2kit.utils.locks import output_lock

JOINT, PROMPT = "joint.safetensors", "prompt.json"


def save(
    model: Model,
    folder: Path,
    *,
    trained: dict[str, Any] | None = None,
    force: bool = False,
    by_reference: bool | None = None,
) -> Manifest:
    """Write a bundle into a temporary folder and move it into place, so that no half-written one is ever seen.

    Args:
        by_reference: True: a backbone that is still what its source gives is not copied, but referred to: its weight source
            with the sha256 of its files. The base under an adapter is such a backbone, one that was trained is not. False:
            everything is copied. None: a part that was loaded by reference stays one.

    Raises:
        BadInput: something is in the way and `force` is not set. Failed: a weight is not finite.
    """
    ensure_writable(folder, KIND, force=force)
    if broken := _not_finite(model):
        raise Failed(f"{broken} is not finite: {folder} was not written", "train again, with lower learning rates")
    with (
        disk_full_guard(f"{folder} cannot be written", "free some space; the same command goes on"),
        output_lock(folder),
    ):
        ensure_writable(folder, KIND, force=force)  # now that no other process writes it
        with atomic_dir(folder) as staged:
            return _write(model, staged, folder, trained or {}, by_reference)


def _write(model: Model, staged: Path, folder: Path, trained: dict[str, Any], by_reference: bool | None) -> Manifest:
    """Write the files of a bundle into `staged`, which is to be `folder`."""
    referred = {}
    for kind, part in model.parts.items():
        (staged / kind).mkdir()
        source = model.provenance.sources.get(kind)
        wanted = source is not None and (source.known if by_reference is None else by_reference)
        with lora.adapter_removed(part), part.in_original_dtypes():
            if written := _write_part(part, staged / kind, folder, source if wanted else None):
                referred[kind] = written
        if lora.lora_config_of(part):
            lora.save(part, staged / kind / lora.FOLDER)
    _write_joint(model, staged)
    (staged / RECIPE).write_text(model.recipe.to_yaml(), encoding="utf8")
    files, parts = contents(staged), model.provenance.parts
    manifest = Manifest(
        format=FORMAT,
        fingerprint=model_fingerprint(model.recipe, files, referred, parts),
        width=model.width,
        parts=parts,
        trained=trained,
        files=files,
        sources=referred,
    )
    (staged / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf8")
    sizes = {kind: sum(p.numel() for p in part.parameters()) for kind, part in model.parts.items()}
    (staged / README).write_text(readme(manifest, model.recipe, sizes), encoding="utf8")
    return manifest


def _write_part(part: Part, staged: Path, folder: Path, source: WeightsReference | None) -> WeightsReference | None:
    """Write a part's files into `staged`, or return the reference that the manifest holds in their place."""
    if source is None or references.checksum(part) != source.tensors:
        part.save(staged)
        return None
    copy = source.stands_for
    if not copy:
        part.save(staged)
        copy = folder_digests(staged)
        shutil.rmtree(staged)
        staged.mkdir()
    return references.stored_reference(source, folder, copy)


def _joint(model: Model) -> dict[str, Tensor]:
    """Return the tensors that belong to no part."""
    joint = {"gain": model.connector_scale, "words": model.special_tokens.table.weight.data}
    joint |= {"residual": model.residual.weight.data} if model.residual is not None else {}
    return joint | ({"head": model.head.get_parameter("weight").data} if model.recipe.head.width else {})


def _write_joint(model: Model, folder: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in _joint(model).items()}, folder / JOINT)
    # The wording itself, not its name: a user's template file may change or go away.
    text = json.dumps(asdict(model.prompt_builder.template), ensure_ascii=False, indent=1)
    (folder / PROMPT).write_text(text, encoding="utf8")


def _not_finite(model: Model) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity, None if there is none."""
    tensors = ((name, t) for name, t in model.state_dict().items() if t.is_floating_point() and t.numel())
    return next((name for name, t in tensors if not torch.stack(t.aminmax()).isfinite().all()), None)


def load(folder: str | Path, *, recipe: Recipe | None = None) -> Model:
    """Load a bundle, or the one in a run folder: `n2kit.load("runs/my-run")`.

    >>> n2kit.load("models/tiny").encode([{"title": "oak chair"}, {"image": "noto_3.png"}], images="images").shape
    (2, 16)

    Args:
        recipe: what takes the place of the bundle's own; of the model it may only change how parts are tuned.

    Raises:
        BadInput: no bundle, a damaged one, or one whose referred weights have changed. Mismatch: parts that cannot be tuned as
            `recipe` says. Unavailable: a plug-in that it needs is not installed, or weights that it refers to are not there.
    """
    folder = bundle_folder(folder)
    manifest, own = read_manifest(folder), read_recipe(folder)
    verify(folder, manifest, own)
    try:
        with blaming(), collector_paused():
            return _join(folder, manifest, own, recipe or own)
    except (N2kitError, MemoryError):
        raise
    except Exception as error:  # a part's file may say what it must not, and its library fail in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(f"{folder} is damaged: {reason}", "build, train or copy the bundle again") from error


def _join(folder: Path, manifest: Manifest, own: Recipe, recipe: Recipe) -> Model:
    """Load the parts of a bundle and join them.

    Args:
        own: the bundle's own recipe; `recipe`, the one to join them by.
    """
    owners = {kind: _owner(kind, facts) for kind, facts in manifest.parts.items()}
    provenance = Provenance(manifest.parts)
    parts = _referred(folder, manifest, owners, provenance)
    for kind, registered in owners.items():
        if kind not in parts:
            parts[kind] = _class(kind, registered).load(folder / kind)
        parts[kind].origin = _origin(kind, manifest)
        if (folder / kind / lora.FOLDER).is_dir() or getattr(getattr(own, kind), "tune", "").startswith(ADAPTED):
            lora.load(parts[kind], folder / kind / lora.FOLDER)
    vision, transform = parts.get("vision"), manifest.parts.get("vision", {}).get("transform")
    if vision is not None and vision.transform_id != transform:
        raise ValueError(f"image transform {vision.transform_id}, the manifest says {transform}")
    template = Template(**read_json(folder / PROMPT))
    model = Model(Parts(**parts), recipe, provenance, template)
    joint, own_joint = load_file(folder / JOINT), _joint(model)
    if {k: v.shape for k, v in joint.items()} != {k: v.shape for k, v in own_joint.items()}:
        raise ValueError(f"{JOINT} does not fit: it holds {', '.join(sorted(joint))}")
    for name, tensor in own_joint.items():
        tensor.copy_(joint[name])
    if broken := _not_finite(model):
        raise ValueError(f"{broken} is not finite")
    return model.eval()


def _origin(kind: str, manifest: Manifest) -> str | None:
    """Identify the files that a part was loaded from, which were compared with the manifest's hashes; None where it has none."""
    files = {name: found for name, found in manifest.files.items() if name.startswith(f"{kind}/")}
    source = manifest.sources[kind].files if kind in manifest.sources else {}
    return hashlib.sha256(json.dumps([files, source], sort_keys=True).encode()).hexdigest() if files or source else None


def _referred(
    folder: Path, manifest: Manifest, owners: Mapping[str, RegisteredComponent], provenance: Provenance
) -> dict[str, Any]:
    """Load the parts that are stored as references; the parts of one multimodal LLM are read together."""
    given, made = references.places_from_env(), {}
    parts = {}
    for kind, source in manifest.sources.items():
        registered = owners[kind]
        override = given.get(kind, given.get(registered.spec.kind))
        source, place = references.find(kind, source, folder, override)
        key = (registered.spec.name, place, repr(source.options), source.head)
        if key not in made:
            options = load_target(registered.spec.config, owner=registered.distribution).model_validate(source.options)
            made[key] = load_target(registered.spec.target, owner=registered.distribution).create(
                LoadSpec(options, place, source.head)
            )
        parts[kind] = getattr(made[key], kind) if registered.spec.kind == "mllm" else made[key]
        provenance.sources[kind] = source.model_copy(update={"tensors": references.checksum(parts[kind])})
    return parts


def merge(folder: Path, out: Path, *, force: bool = False) -> Manifest:
    """Write a bundle whose adapters are merged into its weights; its vectors are the same but for rounding.

    Raises:
        BadInput: no bundle, one without an adapter, or something in the way and `force` not set.
    """
    ensure_writable(out, KIND, force=force)
    with output_lock(out):
        return _merge(folder, out, force)


def _merge(folder: Path, out: Path, force: bool) -> Manifest:
    manifest, model = read_manifest(folder), load(folder)
    held = [kind for kind, part in model.parts.items() if lora.lora_config_of(part)]
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


def pack(folder: Path, out: Path, *, force: bool = False) -> Manifest:
    """Write a copy of a bundle that holds all its weights; the model and its fingerprint stay the same.

    Raises:
        BadInput, Unavailable: as `load`; or something in the way and `force` not set.
    """
    ensure_writable(out, KIND, force=force)
    with output_lock(out):
        return save(load(folder), out, trained=read_manifest(folder).trained, force=force, by_reference=False)


def _owner(kind: str, facts: dict[str, Any]) -> RegisteredComponent:
    """Find the installed component that a part was made by.

    Raises:
        Unavailable: its plug-in is not installed.
    """
    name, distribution = facts["component"], facts["distribution"]
    for registered in manager().components(facts.get("kind", kind)):  # a multimodal LLM owns three parts
        if registered.spec.name == name and registered.distribution == distribution:
            require(registered.spec, distribution)
            return registered
    raise Unavailable(
        f"the bundle's {kind} is {name!r} of the plug-in {distribution} {facts['version']}, which is not installed here",
        f"pip install {distribution}",
    )


def _class(kind: str, registered: RegisteredComponent) -> Any:
    target = load_target(registered.spec.target, owner=registered.distribution)
    return getattr(target, kind) if registered.spec.kind == "mllm" else target
