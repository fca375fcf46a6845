"""The plan of a combination, made before any weight exists."""
