"""Ties refiner, judge and constraint to stock verl: data, training, evaluation, figures."""
