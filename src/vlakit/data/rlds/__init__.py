"""RLDS without TensorFlow: records, features, episodes, in and out."""
