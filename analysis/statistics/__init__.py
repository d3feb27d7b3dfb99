"""Statistics of stored predictions: resampling, ranks, calibration, ensembles."""
