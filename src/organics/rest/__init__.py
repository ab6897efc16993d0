"""Steady states of circuits."""
