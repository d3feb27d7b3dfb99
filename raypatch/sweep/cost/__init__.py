"""What a sweep costs, and where its trials are placed."""
