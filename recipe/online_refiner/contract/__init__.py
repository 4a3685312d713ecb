"""Contracts of what users write themselves: checks to run on a constraint, a reward, a template."""
