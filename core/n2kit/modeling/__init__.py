"""The joined model: prompts, batches, the forward pass, and its savings."""
