"""Stability of a steady state: spectrum, oscillators, certificate, verification, energy."""
