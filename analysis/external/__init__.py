"""A run's best model on data of another source: scores beside the internal ones, and images that it has seen before."""
