"""The whole path on an embedded default: real weights out of packages, real items out of this one."""

from n2kit.demo.result import DemoResult
from n2kit.demo.run import run

__all__ = ["DemoResult", "run"]
