"""A cluster of real processes on this machine: to look at (``make cluster``), to test and to measure."""
