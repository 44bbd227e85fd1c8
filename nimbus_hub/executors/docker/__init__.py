"""Replicas as containers of Docker engines; each engine is one host of the cluster."""
