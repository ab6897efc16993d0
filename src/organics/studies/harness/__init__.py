"""Describes, runs, stores and reports studies."""
