"""What a dataset means: one YAML of ops, and the trajectory it makes of raw steps."""
