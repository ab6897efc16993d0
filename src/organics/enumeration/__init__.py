"""All steady states of a circuit: found by a search, and proved to be all."""
