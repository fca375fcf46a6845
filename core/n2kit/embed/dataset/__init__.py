"""A folder of vectors in shards: written by any number of processes, grown by new items, read piece by piece."""
