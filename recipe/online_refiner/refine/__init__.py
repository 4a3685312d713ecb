"""The path of one rollout through the refiner: limits, feedback, judging, counting."""
