"""Windows to samples to batches: scenes, splits, statistics, chips."""
