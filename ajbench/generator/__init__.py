"""Latent diffusion: text → states, U-Net, training, class tokens, sampling, and the pipeline of them all."""
