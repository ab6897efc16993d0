"""Studies made with the library: the paper's figures, tables and claims, and our own."""
