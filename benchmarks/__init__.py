"""Figures on speed and memory, side by side with something else in one run. ``python -m benchmarks`` prints them.

Nothing here is asserted: machines differ, so what counts is the ratio of two things measured in turn on one machine.
"""
