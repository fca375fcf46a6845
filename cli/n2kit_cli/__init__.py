"""The command line: flags → one library call → output. No logic of its own."""
