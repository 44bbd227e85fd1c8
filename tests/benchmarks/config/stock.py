"""A hub as JupyterHub brings it, with the same proxy, programs and default page as Nimbus."""

import json
import os
import sys
from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821

hub_port, proxy_port = os.environ["BENCH_INNER_PORTS"].split()
user = os.environ["BENCH_USER"]
token = os.environ["BENCH_TOKEN"]
home = os.environ["HOME"]

c.JupyterHub.bind_url = os.environ["BENCH_URL"]
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = int(hub_port)
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "cookie_secret"
c.ConfigurableHTTPProxy.command = json.loads(os.environ["BENCH_PROXY"])
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"

# Nobody logs in: the measurements are taken with the token.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = token
c.Authenticator.allowed_users = {user}
c.JupyterHub.services = [{"name": "bench", "api_token": token}]
c.JupyterHub.load_roles = [
    {"name": "bench", "scopes": ["admin:servers", "read:users"], "services": ["bench"]}
]

c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = home
c.Spawner.cmd = [str(Path(sys.executable).parent / "jupyterhub-singleuser")]
c.Spawner.default_url = "/lab"
if os.geteuid() == 0:
    c.Spawner.args = ["--allow-root"]
# As in Nimbus: the request is answered soon and the progress stream tells the rest.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.2}
