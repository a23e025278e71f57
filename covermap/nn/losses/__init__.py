"""One file for each family of losses, `base` for what they share, `expression` for sums of them."""
