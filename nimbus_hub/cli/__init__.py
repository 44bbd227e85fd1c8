"""Nimbus from a terminal."""
