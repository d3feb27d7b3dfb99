"""The search of hyperparameters."""
