"""Items, pairs, images: what users bring, read strictly."""
