"""Plug-ins: their discovery, their isolation, and the components and weights that they bring."""
