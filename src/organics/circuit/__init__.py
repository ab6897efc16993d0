"""The circuit: its equations, its parameters, its files."""
