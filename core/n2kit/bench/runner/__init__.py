"""Running the cells of a matrix, and keeping what came of them."""
