"""The joined model: prompts, batches, the one forward, and what saves work in it."""
