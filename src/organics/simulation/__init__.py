"""The circuit in time."""
