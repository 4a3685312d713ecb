"""The path of one rollout through the refiner: feedback, judging, counting."""
