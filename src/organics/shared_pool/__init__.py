"""Circuits in which all neurons share one pool, and `W_r` is symmetric: an exact reduction."""
