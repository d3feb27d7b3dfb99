"""What runs beside a sweep and ends with it: a Ray on this machine, NVIDIA's Multi-Process Service."""
