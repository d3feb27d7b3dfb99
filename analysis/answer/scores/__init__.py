"""What levels score: which metrics, cells of trials that may be averaged, means over them, ensembles."""
