"""Sweeps: what is left to do, and the executors that do it."""
