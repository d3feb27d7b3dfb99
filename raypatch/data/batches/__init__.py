"""From a split to batches on their device: a share of its images, resized and augmented."""
