"""Checkpoints: what they hold, written beside the training, and a trial taken up again at its last one."""
