"""Where a circuit rests."""
