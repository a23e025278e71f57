"""The legends that come with covermap, as YAML."""
