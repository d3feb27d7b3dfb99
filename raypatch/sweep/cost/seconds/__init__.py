"""Seconds of a trial on this device: what is timed, kept in a file, scaled where it was not timed, and summed up."""
