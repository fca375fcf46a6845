"""n2kit build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit.errors import counted
from n2kit_cli import options
from n2kit_cli.option_groups import chooses
from n2kit_cli.output import document, say
from n2kit_cli.plan import planned, refuse, show, slug

if TYPE_CHECKING:
    from n2kit.bundle.manifest import Manifest

MODELS = Path("models")


@chooses()
def build(
    chosen: dict[str, str],
    combination: options.Combination = None,
    variant: options.VariantName = None,
    tune: options.Tuned = None,
    lr: options.Rates = None,
    sets: options.Sets = None,
    recipe: options.RecipeFile = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="A folder of peft: an adapter to put into the language model's weights."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The bundle's folder; default models/ID.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; load no weight.")] = False,
    by_reference: Annotated[
        bool,
        typer.Option("--by-reference", help="Refer to the backbones' weights where they are, by hash, and copy none."),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Join a language model and a vision encoder into a bundle.

    Shows the plan (parts, widths, tokens an image takes, parameters, memory), or refuses the combination and says what would fit.

    \b
    Examples:
      n2kit build --llm qwen --vision siglip --dry-run
      n2kit build --llm qwen:tiny --vision siglip:tiny -o models/tiny
      n2kit build llama:tiny+clip:tiny+mlp:4+gate -o models/tiny-mlp --set head.width=32
      n2kit build --llm qwen:tiny --vision siglip:tiny --tune llm=lora:4,vision=last:1 -o models/tiny-lora
      n2kit build --llm qwen --vision siglip --tune llm=lora:16 --by-reference --dry-run
      n2kit build --llm qwen:tiny --variant text_only --dry-run --json
    """
    from n2kit.bundle.manifest import KIND
    from n2kit.contract.kinds import BACKBONES
    from n2kit.planning.advice import propose
    from n2kit.planning.memory import device_memory
    from n2kit.planning.planner import describe
    from n2kit.recipe.settings import drop_none
    from n2kit.recipe.tuning import lr_flags, tune_flags
    from n2kit.utils.folders import ensure_writable
    from n2kit.utils.locks import output_lock

    named = chosen | drop_none(variant=variant)
    named |= drop_none(**{"llm.adapter": str(adapter) if adapter else None})
    plan = planned(combination, {**named, **tune_flags(tune), **lr_flags(lr)}, sets, recipe)
    propose(plan, *device_memory())
    if not json:
        show(plan)
    elif dry_run or plan.refusals:
        document(describe(plan))
    refuse(plan)
    if dry_run:
        return
    folder = out or MODELS / slug(plan.id)
    ensure_writable(folder, KIND, force=force)
    for component in plan.components.values():
        component.weights.locate()  # before torch is imported: a missing download should be said at once
    with output_lock(folder):
        named_weights = [f"{c.reference} ({c.weights})" for kind, c in plan.components.items() if kind in BACKBONES]
        say(f"loading {' and '.join(named_weights)}")
        from n2kit.builder import from_plan
        from n2kit.bundle.io import save

        model = from_plan(plan)
        manifest = save(model, folder, force=force, by_reference=by_reference)
    if by_reference:
        _say_sources(manifest)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if json:
        made = {"bundle": str(folder), "fingerprint": manifest.fingerprint, "trainable": trainable}
        document(describe(plan) | made)
    say(f"wrote {folder} (model {manifest.fingerprint}, {counted(trainable, 'parameter')} to train)")


def _say_sources(manifest: Manifest) -> None:
    """Print which backbones are not copied, and why another one is."""
    for kind in ("llm", "vision"):
        if source := manifest.sources.get(kind):
            say(f"{kind}: by reference to {source.weights}")
        elif kind in manifest.parts:
            say(
                f"note: {kind} is copied: its weights are random or have an adapter in them, and a reference would not give them back"
            )
