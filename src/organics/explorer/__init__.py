"""A page that explores one circuit in a browser; it reads what a circuit file holds."""
