"""Folders of data: public sets imported, pairs split, everything checked."""
