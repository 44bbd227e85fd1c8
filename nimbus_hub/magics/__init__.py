"""Nimbus from a notebook cell."""
