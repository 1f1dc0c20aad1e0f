"""Preparation shared by training, evaluation and serving: one place where an observation becomes inputs."""
