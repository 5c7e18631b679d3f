"""The training loop, checkpoints and loss curves."""
