"""What was found out with the library: the paper's figures, tables and claims, and ours."""
