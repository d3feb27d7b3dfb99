"""Three executors of one kind: in this process, on a Ray of its own, on a cluster."""
