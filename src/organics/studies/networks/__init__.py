"""Networks that several studies train or look into, found or made once."""
