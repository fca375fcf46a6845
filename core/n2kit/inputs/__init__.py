"""Items read into batches, and caches of what frozen parts compute."""
