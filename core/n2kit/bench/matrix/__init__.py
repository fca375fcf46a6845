"""A matrix and its combinations, expanded into the cells to run."""
