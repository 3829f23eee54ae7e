"""Runs a model over a text, one block after the other."""
