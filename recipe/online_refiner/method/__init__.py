"""The constraints: one file each, the interface they share, and the mathematics beside them."""
