"""Pairs out of logs: who viewed one item and then clicked another, with DuckDB in partitions that fit a given memory."""

from n2kit.utils.lazy_exports import lazy_exports

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {"n2kit.mining.run": "mine Mined", "n2kit.mining.settings": "MineSettings", "n2kit.mining.query": "sql_of"},
)
