"""Diffusion Policy (Chi et al. 2023): actions by denoising, behind a convolutional or a transformer network."""
