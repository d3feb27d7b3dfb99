"""What a machine offers: cores, folders that can be written, device, precision."""
