"""WebDataset shards: written, indexed, verified, read frame by frame."""
