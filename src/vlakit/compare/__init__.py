"""Anybody's episodes to a verdict; NumPy and SciPy only."""
