"""The order of training, and batches."""
