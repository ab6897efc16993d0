"""Simulations of circuits."""
