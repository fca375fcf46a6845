"""The run of a matrix: its cells as tasks, and the files of their results."""
