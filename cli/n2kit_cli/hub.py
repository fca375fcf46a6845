"""n2kit hub: push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, emit, say

app = typer.Typer(help="Bundles on a model hub.", no_args_is_help=True)
Repository = Annotated[str, typer.Argument(help="ORGANISATION/NAME.")]


@app.command()
def push(
    bundle: options.Bundle,
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="Make the repository for you alone.")] = False,
    have_right: Annotated[
        bool, typer.Option("--i-have-the-right", help="You may hand these weights on, whatever their licence.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Upload a bundle to the hub of HF_ENDPOINT, with its card: recipe, data's fingerprint, results, licences.

    \b
    Examples:
      n2kit hub push models/tiny my-shop/similar-items --private
    """
    from n2kit.hub import push as run

    address = run(bundle, repository, private=private, have_right=have_right)
    if json:
        document({"repository": repository, "commit": address})
    else:
        emit(address)
    say(f"pushed {bundle} to {repository}")


@app.command()
def pull(
    repository: Repository,
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle's folder.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Download a bundle from the hub of HF_ENDPOINT, and check every file of it.

    \b
    Examples:
      n2kit hub pull my-shop/similar-items -o models/pulled
    """
    from n2kit.hub import pull as run

    manifest = run(repository, out, revision=revision, force=force)
    if json:
        document({"bundle": str(out), "fingerprint": manifest.fingerprint, "width": manifest.width})
    else:
        emit(out)
    say(f"pulled {repository}: model {manifest.fingerprint}")
