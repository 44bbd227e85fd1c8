"""Bring-up of the embedded hub: what `nimbus-hub up` prepares, starts and ends.

One state directory is one hub: its database, secrets, ports, proxy and the records of what
runs. Nothing here knows the service; it is started as a command of the hub.
"""
