"""The search spaces that come with raypatch, one YAML file each."""
