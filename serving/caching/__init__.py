"""Answers that were made before, and whether two questions ask the same."""
