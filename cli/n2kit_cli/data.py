"""n2kit data: from logs and catalogues as people have them to a folder that every command reads."""

from __future__ import annotations

import typer

from n2kit_cli.data_check import check
from n2kit_cli.data_import import demo, import_
from n2kit_cli.data_mine import mine
from n2kit_cli.data_pack import pack
from n2kit_cli.data_split import split

app = typer.Typer(
    help="Make a folder of items and pairs: import a public set, mine pairs from a log, split, check, pack.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("import")(import_)
app.command()(mine)
app.command()(split)
app.command()(check)
app.command()(pack)
app.command()(demo)
