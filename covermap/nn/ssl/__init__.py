"""Learning without labels: maskers, views, heads, losses, teachers, and the methods made of them."""
