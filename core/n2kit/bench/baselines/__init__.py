"""Frozen-feature baselines beside the joined models."""
