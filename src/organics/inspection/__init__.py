"""Trained recurrent networks looked into: their fixed points, and proofs about these."""
