"""The library as a program calls it: `n2kit.train`, `n2kit.embed` and the others, each a function of typed arguments."""
