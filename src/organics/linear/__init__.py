"""Linear algebra of the circuit: Jacobian, eigenvalues, Krylov methods."""
