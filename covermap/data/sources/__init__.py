"""Layouts of published data sets, one file each; see data/source.py."""
