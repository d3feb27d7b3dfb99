"""What is asked of an image: classes or labels; head, loss, metrics."""
