"""Stand-ins that tests share: small sounds, stores, models and results."""
