"""What a matrix is to run: its combinations as cells."""
