"""Pages about runs, for a person to look at."""
