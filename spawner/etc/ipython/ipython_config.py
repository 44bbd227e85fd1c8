"""Loads the magics in every session's kernels; IPython elsewhere is left alone.

Installed as etc/ipython/ipython_config.py of the environment, which IPython reads for
everybody. JupyterHub's sessions have NIMBUS_LEASE_ID set, other programs do not.
"""

import os

c = get_config()  # noqa: F821

if os.environ.get("NIMBUS_LEASE_ID"):
    c.InteractiveShellApp.extensions.append("nimbus_hub.magics")
