"""Recordings of neurons: tables and NWB files, summarized for a fit."""
