"""From trials on disk to tables, ensembles, statistics and plots. Never imports ray; needs no GPU."""
