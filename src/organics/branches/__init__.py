"""Steady states and limit cycles followed over a parameter, and the points where they change."""
