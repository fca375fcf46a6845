"""The commands of the program. Only the module of the one that is called is imported: each costs time at every start."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import typer

# Name → its module, and the first sentence of its help, which is all that `n2kit --help` shows of it.
COMMANDS: dict[str, tuple[str, str]] = {
    "data": (
        "data",
        "Make a folder of items and pairs: import a public set, mine pairs from a log, split, check, pack.",
    ),
    "plan": (
        "plan",
        "Show what a combination consists of and whether it can be built: parts, tokens, parameters, memory.",
    ),
    "build": ("build", "Join a language model and a vision encoder into a bundle."),
    "fit": (
        "fit",
        "Join a bundle's text and image by whitening, in closed form: seconds beyond the features, and nothing is trained.",
    ),
    "train": ("train", "Train a bundle on pairs; the trained bundle is RUN/bundle."),
    "merge": (
        "merge",
        "Merge a bundle's adapters into its weights: the same vectors but for rounding, and no adapter left.",
    ),
    "pack": (
        "pack",
        "Copy a bundle together with the weights that it refers to: the same model, to be moved anywhere.",
    ),
    "embed": ("embed", "Embed a catalogue: one unit vector an item."),
    "index": ("index", "Index vectors for search."),
    "semantic-ids": ("semantic_ids", "Write semantic ids: a few codes an item, of which like items share the first."),
    "neighbours": ("neighbours", "Write the nearest neighbours of all items."),
    "recommend": (
        "recommend",
        "List the items most similar to one item: of the catalogue by id, or a new one by its text and image.",
    ),
    "serve": (
        "serve",
        "Serve an index and its model: an API of embeddings and recommendations, and a page to look at the catalogue.",
    ),
    "hub": ("hub", "Bundles on a model hub."),
    "export": ("export", "Export a model or its vectors to another program's form."),
    "mine-negatives": (
        "mine",
        "Find hard negatives: items that a model takes for similar and that do not belong together.",
    ),
    "generate": ("generate", "Generate topics, or the category, of items."),
    "eval": (
        "evaluate",
        "Measure recall@k, MRR, NDCG@k and mean rank of vectors on test pairs, with 95 % intervals; or compare two models.",
    ),
    "neglect": (
        "neglect",
        "Measure whether a model uses the image: recall without image, without text, with another item's image; saliency by layer.",
    ),
    "demo": (
        "demo",
        "Run the whole path on real weights and real items: build, fit, train, embed, index, recommend, evaluate, and write a page.",
    ),
    "ls": ("ls", "List what can be joined: every name that --llm, --vision and the others take."),
    "doctor": ("doctor", "Check what this machine can do, and say how to repair the rest."),
    "bench": ("bench", "Run a matrix of combinations, or compare two that were run."),
    "plugins": ("plugins", "Installed plug-ins: what they bring, and which are broken."),
    "card": ("card", "Facts about backbones, as a plan reads them and as they are."),
    "config": ("config", "The settings of a run."),
}


def add_commands(app: typer.Typer, names: Iterable[str]) -> None:
    """Import these commands into a program."""
    for name in names:
        module = importlib.import_module(f"n2kit_cli.{COMMANDS[name][0]}")
        if isinstance(group := getattr(module, "app", None), typer.Typer):
            app.add_typer(group, name=name)
        else:
            app.command(name)(getattr(module, name.replace("-", "_") if name != "eval" else "evaluate"))


def add_summaries(program: Any) -> None:
    """Add every command as its name and its summary, for the program's own help."""
    for name, (_, summary) in COMMANDS.items():
        program.add_command(typer.core.TyperCommand(name, help=summary))
