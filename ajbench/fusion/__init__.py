"""Audio-visual classification: pooled tokens of sound and video, the video discounted by entailment."""
