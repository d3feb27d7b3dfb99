"""Features of a frozen backbone: one pass over the images, stored beside the run, shared by all heads."""
