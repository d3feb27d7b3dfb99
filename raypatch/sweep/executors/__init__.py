"""The executors: three of one kind, which run the trials of a sweep in this process, on a Ray of their own, on a cluster."""
