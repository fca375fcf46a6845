"""The version of the n2kit that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("n2kit")
except PackageNotFoundError:  # a checkout that is not installed
    VERSION = "0+unknown"
