"""The matrix: many combinations trained and evaluated alike, and the report on them."""
