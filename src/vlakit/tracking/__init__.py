"""Where results are kept: the only package that knows MLflow."""
