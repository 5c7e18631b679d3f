"""Two sets of clips compared, classifiers evaluated, and synthetic clips audited for copies."""
