"""The stock hub with DockerSpawner: the same image, home volume and default page as Nimbus."""

import os
from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821
load_subconfig("stock.py", str(Path(__file__).parent))  # type: ignore[name-defined]  # noqa: F821

gateway = os.environ["BENCH_GATEWAY"]
c.JupyterHub.hub_ip = gateway
c.JupyterHub.hub_connect_ip = gateway
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = os.environ["BENCH_IMAGE"]
c.DockerSpawner.cmd = [os.environ["BENCH_PYTHON"], "-m", "jupyterhub.singleuser"]
c.DockerSpawner.args = []
c.DockerSpawner.remove = True
c.DockerSpawner.prefix = os.environ["BENCH_PREFIX"]
c.DockerSpawner.volumes = {os.environ["BENCH_PREFIX"] + "-home-{username}": "/home/jovyan"}
c.DockerSpawner.default_url = "/lab"
