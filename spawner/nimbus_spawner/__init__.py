"""JupyterHub spawners that hold a Nimbus lease."""
