"""A first spec for a dataset that has none, drafted from what its columns do."""
