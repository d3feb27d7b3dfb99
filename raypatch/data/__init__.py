"""Data: datasets by name, found or fetched, checked, and brought to the training in batches."""
