"""Shipped crosswalks: YAML files that say which class of one legend is which class of another."""
