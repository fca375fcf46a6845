"""Items read into batches, and what is kept so that nothing is computed twice."""
