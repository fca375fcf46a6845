"""Plug-ins: found, guarded, and resolved to components and their weights."""
