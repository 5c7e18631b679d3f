"""Clips on disk: audio files, labels, manifests, clip stores, corpora; mixing of real and synthetic clips."""
