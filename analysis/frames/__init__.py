"""From run folders to data frames: trials with their levels, epochs, problems; and what the runs compare."""
