"""How a sweep is watched: displays, status, gauges, event files, trackers."""
