"""The recipe that ties refiner, judge and constraint to stock verl: data, training, evaluation, figures."""
