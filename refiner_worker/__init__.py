"""The refiner: prompt templates, clients and replicas. Imports neither `reward` nor `recipe`."""
