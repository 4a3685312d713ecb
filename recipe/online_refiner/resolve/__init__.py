"""From a composed config to the plan of the run, and what else is told by the config alone."""
