"""One file an experiment; `runs` and `outcome` have what they share."""
