"""Latent diffusion in codec space: training, class tokens, sampling, and the synthesis of clip stores."""
