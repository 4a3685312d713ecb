"""Studies: arms × seeds of one setting, a YAML file each, to a table with tests over the seeds."""
