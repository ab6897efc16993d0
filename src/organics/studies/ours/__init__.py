"""Studies beyond the paper, one a target; and the demo."""
