"""JupyterHub spawners that hold a Nimbus lease.

This file imports nothing: the server of a session starts through this package.
"""
