"""Proofs in ball arithmetic."""
