"""Files to (network, processor) and back."""
