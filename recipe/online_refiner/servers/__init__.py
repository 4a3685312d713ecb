"""The frozen inference servers of the refiner: where they run, when they sleep, their weights."""
