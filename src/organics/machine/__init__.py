"""The machine: its processors and memory, LAPACK's threads, processes and devices side by side."""
