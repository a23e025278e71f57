"""One file for each family of backbones."""
