"""The benchmark matrix: many combinations, trained and evaluated on the same data, each cell once; and the report on them."""
