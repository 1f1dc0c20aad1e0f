"""Counting before running: parameters, memory, throughput."""
