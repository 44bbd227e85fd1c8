"""Notebook-as-a-service for deep learning on shared GPU hosts."""

__version__ = "0.1.0"
