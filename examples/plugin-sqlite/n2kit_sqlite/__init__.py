"""Items out of SQLite: `--items shop.sqlite` reads its table `items`."""

from n2kit.contract import hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_item_readers() -> dict[str, str]:
    return dict.fromkeys((".sqlite", ".db"), "n2kit_sqlite.read:rows")
