"""n2kit build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import count, document, error, say, table

if TYPE_CHECKING:
    from n2kit.plan import Plan

MODELS = Path("models")
MANIFEST = "manifest.json"


def build(
    combination: Annotated[str | None, typer.Argument(help="A combination's id: LLM+VISION+CONNECTOR+FUSION.")] = None,
    llm: Annotated[str | None, typer.Option(help="Language model: NAME[:VARIANT][@SOURCE]; n2kit ls llm.")] = None,
    vision: Annotated[str | None, typer.Option(help="Vision encoder; n2kit ls vision.")] = None,
    connector: Annotated[
        str | None, typer.Option(help="qformer, mlp, linear; qformer:16 for 16 tokens an image.")
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="Late fusion: gate, none.")] = None,
    loss: Annotated[str | None, typer.Option(help="notellm2, infonce.")] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="notellm2, micl, late_early_fusion, only_late_fusion, basic, text_only, image_only."),
    ] = None,
    sets: options.Sets = None,
    recipe: options.RecipeFile = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The bundle's folder; default models/ID.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; load no weight.")] = False,
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
      n2kit build --llm qwen:tiny --variant text_only --dry-run --json
    """
    from n2kit.files import check_free
    from n2kit.plan import make_plan, parse_id
    from n2kit.recipe import given, parse_sets, resolve

    named = given(llm=llm, vision=vision, connector=connector, fusion=fusion, loss=loss, variant=variant)
    combined = parse_id(combination) if combination else {}
    resolved = resolve({**combined, **named, **parse_sets(sets or [])}, file=recipe)
    plan = make_plan(resolved.recipe, given=resolved.origin)
    if not json:
        show(plan)
    elif dry_run or plan.refusals:
        document(plan.to_dict())
    if plan.refusals:
        for refusal in plan.refusals:
            error(refusal.message, refusal.hint)
        raise typer.Exit(2)
    if dry_run:
        return
    folder = out or MODELS / slug(plan.id)
    check_free(folder, MANIFEST, force=force)
    for component in plan.components.values():
        component.weights.locate()  # before torch is imported: a missing download should be said at once
    say("loading weights")
    from n2kit.assemble import from_plan
    from n2kit.bundle import save

    manifest = save(from_plan(plan), folder, force=force)
    if json:
        document(plan.to_dict() | {"bundle": str(folder), "fingerprint": manifest.fingerprint})
    say(f"wrote {folder} (model {manifest.fingerprint})")


def show(plan: Plan) -> None:
    """The plan as a table, and its sums."""
    rows = [(r.part, r.name, r.shape, count(r.parameters), count(r.trainable)) for r in plan.rows]
    table(("part", "name", "shape", "parameters", "trained"), rows, title=plan.id)
    print(
        f"\nvariant {plan.recipe.variant} · {plan.image_tokens} tokens an image · at most {plan.longest} tokens an item · "
        f"{count(plan.parameters)} parameters, {count(plan.trainable)} trained · {plan.memory.total / 1e9:.2f} GB to train"
    )
    for row in plan.rows:
        if row.weights != "random":
            print(f"{row.part}: {row.weights}" + (f", {row.licence}" if row.licence else ""))
    for note in plan.notes:
        say(f"note: {note}")


def slug(name: str) -> str:
    """A combination's id as a folder name."""
    return "".join(c if c.isalnum() or c in "._-+" else "-" for c in name)[:120]
