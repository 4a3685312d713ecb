"""Rows to and from the TransferQueue of verl."""
