"""Where the models of a finished run look: how far their attention reaches, and which pixels decide."""
