"""Octo (Octo Model Team 2024, arXiv 2405.12213): tokens of task and observations, readouts, an action head."""
