"""From a probability to a decision: ROC and precision-recall curves, their areas, thresholds, net benefit."""
