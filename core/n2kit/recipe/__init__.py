"""The settings of a run: typed, with where each came from."""
