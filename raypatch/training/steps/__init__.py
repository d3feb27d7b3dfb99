"""One optimizer step: divided where memory asks for it, recorded on a GPU, with rounded weights for the passes."""
