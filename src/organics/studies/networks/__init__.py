"""Networks that several studies share, trained once."""
