"""The whole path from data to recommendations: weights out of packages, items out of this one."""

from n2kit.demo.result import DemoResult
from n2kit.demo.run import run

__all__ = ["DemoResult", "run"]
