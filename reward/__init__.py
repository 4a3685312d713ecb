"""The judge of untrusted programs and the rewards.

Imports neither `refiner_worker` nor `recipe`.
"""
