"""Intervals, paired tests, corrections for many comparisons, sequential tests, sample sizes; NumPy and SciPy only."""
