"""The episode viewer: an index over a run's files, questions to it, and pages on loopback."""
