"""Demonstrations in, batches out: RLDS without TensorFlow, standardisation, shards, mixtures."""
