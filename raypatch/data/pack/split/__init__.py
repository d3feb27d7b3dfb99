"""Which image goes to which split: labels made numbers, patients kept whole, classes kept even."""
