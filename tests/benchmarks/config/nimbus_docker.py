"""Sessions in containers, cold or warm, with what a session is granted unless it asks."""

import os
from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821
load_subconfig("nimbus.py", str(Path(__file__).parent))  # type: ignore[name-defined]  # noqa: F821

gateway = os.environ["BENCH_GATEWAY"]
port = os.environ["BENCH_URL"].rpartition(":")[2]
c.JupyterHub.bind_url = f"http://0.0.0.0:{port}"
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_ip = gateway
c.NimbusSpawner.public_service_url = f"http://{gateway}:{port}/services/nimbus"
c.JupyterHub.spawner_class = "nimbus_spawner.docker.NimbusDockerSpawner"
c.NimbusDockerSpawner.image = os.environ["BENCH_IMAGE"]
c.NimbusDockerSpawner.prefix = os.environ["BENCH_PREFIX"]
c.NimbusDockerSpawner.volumes = {os.environ["BENCH_PREFIX"] + "-home-{username}": "/home/jovyan"}
c.NimbusDockerSpawner.warm_containers = int(os.environ["BENCH_WARM"])
