"""What a combination will be, before any weight exists."""
