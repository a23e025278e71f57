"""Classical models on pixels: numpy and scikit-learn."""
