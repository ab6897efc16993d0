"""How a study is described, run, kept and reported."""
