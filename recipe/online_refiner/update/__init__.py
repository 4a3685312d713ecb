"""The update of the actor with what a constraint adds to it: rows, weights and the loss."""
