"""Pretrained networks whose embeddings and class scores compare sets of clips."""
