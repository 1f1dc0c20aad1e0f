"""Towers, projector, Llama: OpenVLA."""
