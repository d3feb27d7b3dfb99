"""How the trials of a sweep are carried out: in this process, by Ray here, by a Ray cluster."""
