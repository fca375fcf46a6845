"""An HTTP server of vectors and recommendations, with a page to look at a catalogue (extra `n2kit[serve]`)."""

from n2kit.serve.options import ServeOptions

__all__ = ["ServeOptions"]
