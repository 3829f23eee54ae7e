"""Compiled loops of merge methods, adapters and factors."""
