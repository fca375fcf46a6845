"""Public sets and folders of pictures into a folder of data: rows in, rows out, and the reason for each that is not used."""
