"""Measurements of speed; `python -m benchmarks` takes them all."""
