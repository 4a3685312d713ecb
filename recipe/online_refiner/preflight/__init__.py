"""Rules that a configuration must meet before anything starts, and what will run."""
