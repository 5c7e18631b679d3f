"""Numbers that say whether synthetic audio helped: ranking, distribution distance, intervals, audits."""
