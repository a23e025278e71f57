"""Batches to features to logits: torch only, never geo or data."""
