"""The bundle: a saved model."""
