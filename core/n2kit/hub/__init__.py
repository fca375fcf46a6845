"""Bundles on a model hub: pushed with their card, pulled and checked."""

from n2kit.hub.pull import pull
from n2kit.hub.push import push

__all__ = ["pull", "push"]
