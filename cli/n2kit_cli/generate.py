"""n2kit generate."""

from __future__ import annotations

import json as encoder
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import document, say, table
from n2kit_cli.progress import progress
from n2kit_cli.reading import Reading, reads_items


class Asked(StrEnum):
    """The kind of answer to generate."""

    topics = "topics"
    category = "category"


@takes_data()
@reads_items
def generate(
    bundle: options.GeneratingBundle,
    reading: Reading,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Also write the answers, as JSON lines.")] = None,
    item: Annotated[list[str] | None, typer.Option("--id", help="Only this item; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many, the first of the file.")] = None,
    task: Annotated[Asked, typer.Option(help="What to generate.")] = Asked.topics,
    count: Annotated[int | None, typer.Option(min=1, help="Topics to ask for; default 5.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 32,
    beams: Annotated[
        int, typer.Option(min=1, help="Beginnings of an answer that are followed at a time; 1: greedy.")
    ] = 1,
    precision: options.Compute = options.Precision.auto,
    device: options.Device = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Generate topics, or the category, of items. An item's own topics stay in its prompt, and are not asked for again.

    \b
    Examples:
      n2kit build --llm qwen:tiny --variant text_only --loss notellm -o models/topics
      n2kit train models/topics --items items.jsonl --pairs train.csv -o runs/topics --max-steps 2 --batch-size 4
      n2kit generate runs/topics/bundle --items items.jsonl --limit 3 --max-new-tokens 8 -o topics.jsonl
      n2kit generate runs/topics/bundle --items items.jsonl --id noto:1f600 --task category --max-new-tokens 8 --json
    """
    from n2kit.bundle.io import read_manifest, read_recipe
    from n2kit.errors import BadInput, suggest
    from n2kit.modeling.prompts import Task
    from n2kit.utils.files import ensure_writable_file, write_text
    from n2kit.utils.folders import ensure_outside_bundles

    if out is not None:
        ensure_writable_file(out, [reading.items])
        ensure_outside_bundles(out)
        if out.exists() and not force:
            raise BadInput(f"{out} exists", "give another -o, or --force to replace it")
    if count is not None and task is Asked.category:
        raise BadInput("--count counts topics, and --task category was asked for", "leave one of them out")
    manifest = read_manifest(bundle)
    if item and limit is not None:
        raise BadInput("give either --id or --limit", "n2kit generate --help")
    catalogue = reading.catalogue(read_recipe(bundle).variant)
    if unknown := next((i for i in item or [] if i not in catalogue), None):
        raise BadInput(f"no item {unknown!r} in {reading.items}", suggest(unknown, catalogue.position) or "check --id")
    wanted = [catalogue[i] for i in item] if item else catalogue.items[:limit]
    from n2kit.embed.generate import TOPICS
    from n2kit.embed.generate import generate as run

    model = options.load_model(bundle, device)
    skipped: dict[str, str] = {}
    answers = []
    with progress("generate") as bar:
        for answer in run(
            model, wanted, Task(task.value, count or TOPICS if task is Asked.topics else 0), max_new_tokens=max_new_tokens, num_beams=beams,
            images=reading.images, on_bad_image=reading.on_bad_image.value, precision=precision.value, skipped=skipped,
        ):  # fmt: skip
            answers.append(answer)
            bar(len(answers), len(wanted))
    counts = reading.skipped(skipped, catalogue, out)
    shown = [{"id": a.id, task.value: list(a.topics) if task is Asked.topics else a.text} for a in answers]
    if out is not None:
        write_text(out, "".join(encoder.dumps(row, ensure_ascii=False) + "\n" for row in shown))
        say(f"wrote {out}")
    if json:
        facts = {"task": task.value, "fingerprint": manifest.fingerprint, "items": shown, "skipped": skipped}
        document(facts | {"counts": counts, "read": catalogue.facts()})
    else:
        table(("id", task.value), [(a.id, ", ".join(a.topics) if task is Asked.topics else a.text) for a in answers])
