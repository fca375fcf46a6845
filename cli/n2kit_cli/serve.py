"""n2kit serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.data_folder import takes_data
from n2kit_cli.output import event, say

DEFAULT = "catalogue"  # the name of an index whose folder has none


@takes_data()
def serve(
    index: Annotated[
        list[str] | None,
        typer.Option(help="An index of n2kit index: FOLDER, or NAME=FOLDER. Repeatable: the page compares them."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", help="The model that made an index, for new items and /v1/embeddings. Repeatable."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="The catalogue's items: whole texts, categories, views.")
    ] = None,
    images: options.Images = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    feedback: Annotated[
        Path | None, typer.Option(help="A pairs file, .csv or .jsonl, for the page's thumbs up and down.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let no request put items into an index, or take them out.")
    ] = False,
    api_key: Annotated[
        str | None, typer.Option(envvar="N2KIT_API_KEY", help="A key that every request of /v1 has to bring.")
    ] = None,
    image_hosts: Annotated[
        list[str] | None, typer.Option("--allow-image-host", help="A host that images may be fetched from. Repeatable.")
    ] = None,
    hosts: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A further name that a local server is called by.")
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="A site whose pages may call the server (CORS).")
    ] = None,
    max_concurrent: Annotated[
        int, typer.Option("--max-concurrent", min=1, help="Requests at work; beyond them the answer is 429.")
    ] = 128,
    max_inputs: Annotated[int, typer.Option("--max-inputs", min=1, help="Items of one request.")] = 256,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="Megabytes of one request.")] = 32,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help="Millions of pixels of one image.")] = 50,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Tokens of one model call.")] = 8192,
    batch_wait: Annotated[
        int, typer.Option("--batch-wait", min=0, max=1000, help="Milliseconds that a call waits for company.")
    ] = 5,
    device: options.Device = None,
    item_format: options.Format = options.AUTO,
    renames: options.Map = None,
    encoding: options.Encoding = None,
    lenient: options.Lenient = False,
    json: options.Json = False,
) -> None:
    """Serve an index and its model: an API of embeddings and recommendations, and a page to look at the catalogue.

    \b
    Examples:
      n2kit serve --index with-titles.index
      n2kit serve --index with-titles.index --bundle models/tiny --items items.jsonl --images images --feedback votes.csv
    """
    try:
        from n2kit.serve.run import serve as run
    except ImportError as problem:
        from n2kit.errors import Unavailable

        raise Unavailable(
            f"n2kit serve needs {problem.name}, which is not installed", "pip install 'n2kit[serve]'"
        ) from None
    from n2kit.serve import ServeOptions
    from n2kit.utils.folders import bundle_folder

    catalogue = None if items is None else options.read(items, item_format, renames, lenient, encoding)
    wanted = ServeOptions(
        indexes=named(index or []), bundles=tuple(map(bundle_folder, bundle or ())), items=catalogue, images=images,
        read_only=read_only, feedback=feedback, device=device, host=host, port=port, api_key=api_key or None,
        image_hosts=tuple(h.lower() for h in image_hosts or ()), hosts=tuple(hosts or ()), origins=tuple(origins or ()),
        max_concurrent=max_concurrent, max_inputs=max_inputs, max_body=max_body * 1_000_000,
        max_pixels=max_pixels * 1_000_000, batch_tokens=batch_tokens, batch_wait=batch_wait / 1000,
    )  # fmt: skip

    def ready(address: str) -> None:
        if json:
            event({"event": "ready", "address": address})
        if api_key is None and host not in ("127.0.0.1", "::1", "localhost"):
            say("note: anybody who reaches this address is answered; --api-key KEY, or N2KIT_API_KEY, asks for a key")
        say(f"serving at {address}; Ctrl-C stops")

    run(wanted, notify=say, ready=ready)


def named(given: list[str]) -> dict[str, Path]:
    """Parse FOLDER and NAME=FOLDER.

    Raises:
        BadInput: two of one name.
    """
    from n2kit.errors import BadInput

    found: dict[str, Path] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or Path(one).is_dir():
            name, folder = Path(one).resolve().name.removesuffix(".index") or DEFAULT, one
        if name in found:
            raise BadInput(f"two indexes are called {name!r}", f"--index NAME={folder}")
        found[name] = Path(folder)
    return found
