"""The settings of a run: typed, each with the layer that set it."""
