"""Whether a machine with a GPU trains as it should: one command, a table and a JSON file.

`scripts/gpu_acceptance.py` runs it; docs/gpu.md explains every line of the table.
"""
