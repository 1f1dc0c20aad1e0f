"""A finished run as a dossier that others can check."""
