"""Pages for people's eyes: items and their neighbours, with pictures, in one self-contained HTML file."""

from n2kit.pages.neighbours import Example, Figure, draw_examples, ensure_page, figure_of, label, write_neighbours
from n2kit.pages.render import render

__all__ = ["Example", "Figure", "draw_examples", "ensure_page", "figure_of", "label", "render", "write_neighbours"]
