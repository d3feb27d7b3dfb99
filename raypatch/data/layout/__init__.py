"""The layout of MedMNIST's .npz files: images, labels and masks read by its rules, or refused with the way out."""
