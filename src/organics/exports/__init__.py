"""Trained networks as files of other programs."""
