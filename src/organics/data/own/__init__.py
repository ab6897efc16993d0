"""Data sets of the user: files and arrays of any content, checked, split and standardised."""
