"""Scores from counts: numpy only."""
