"""One reader per corpus: corpus files (or a seed) → manifest."""
