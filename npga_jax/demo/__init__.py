"""A synthetic capture of one head, made for the first run."""
