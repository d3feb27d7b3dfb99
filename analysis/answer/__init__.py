"""From trials to the answer of a study, as numbers and in sentences."""
