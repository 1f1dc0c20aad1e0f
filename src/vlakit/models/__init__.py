"""The policy network: vision towers, projector, language model, decoding. Knows no dataset and no trainer."""
