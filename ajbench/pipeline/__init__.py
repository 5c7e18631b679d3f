"""The stages of a recipe: what each reads, where it writes, what is done and what is left to do."""
