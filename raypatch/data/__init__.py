"""Data: names and facts, files, made images, augmentation."""
