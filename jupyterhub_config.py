"""The hub that `nimbus-hub up` and `make run` start.

What you set in a file of your own, `nimbus-hub up --config my.py`, is loaded on top of
this one; it may set anything of JupyterHub (`c.JupyterHub`, `c.Spawner`, ...), of the
spawner (`c.NimbusSpawner`) and of the service (`c.NimbusHub`, read by the service itself).
"""

import os
import sys
from pathlib import Path

import nimbus_spawner
from nimbus_spawner.certificates import alt_name
from nimbus_spawner.local import NimbusLocalSpawner, refusal

from nimbus_hub.up.account import own_home, own_name
from nimbus_hub.up.login import OwnerAuthenticator
from nimbus_hub.up.proxy import proxy_command
from nimbus_hub.up.secrets import kept_token
from nimbus_hub.up.state import State

c = get_config()  # noqa: F821

state = State.from_environment()  # NIMBUS_HUB_STATE
addresses = state.addresses()  # chosen by `nimbus-hub up`
if addresses is None:
    raise SystemExit("Start this hub with: nimbus-hub up")
owner = own_name().lower()
own_config = os.environ.get("NIMBUS_HUB_CONFIG", "")

# Where things are ------------------------------------------------------------------------

c.JupyterHub.db_url = f"sqlite:///{state.database}"
c.JupyterHub.cookie_secret_file = str(state.secrets / "cookie_secret")
c.JupyterHub.internal_certs_location = str(state.secrets / "internal-ssl")
c.JupyterHub.pid_file = str(state.hub_pid)
c.JupyterHub.bind_url = f"http://{addresses.ip}:{addresses.port}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = addresses.hub_port

# The proxy. Its token is kept, and its pid file: a hub that died without a word finds the
# proxy it left behind.
c.ConfigurableHTTPProxy.command = proxy_command(state)
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{addresses.proxy_api_port}"
c.ConfigurableHTTPProxy.auth_token = kept_token(state.secrets, "proxy_token")
c.ConfigurableHTTPProxy.pid_file = str(state.proxy_pid)

# Log-in ----------------------------------------------------------------------------------
# One user, who started the hub; `nimbus-hub password` makes a new password. For a group put
# any authenticator of JupyterHub into your own file, for example
#     c.JupyterHub.authenticator_class = "github"          # pip install oauthenticator
#     c.Authenticator.allowed_users = {"ada", "grace"}
#     c.Authenticator.admin_users = {"ada"}
# and see docs/authenticators.md. Sessions of other system users need a hub run by root.

c.JupyterHub.authenticator_class = OwnerAuthenticator
c.OwnerAuthenticator.password_file = str(state.secrets / "password")
c.Authenticator.allowed_users = {owner}
c.Authenticator.admin_users = {owner}

# Scopes ----------------------------------------------------------------------------------
# Both lists are needed for a session: a token gets only what its user holds.

c.JupyterHub.custom_scopes = {
    "custom:nimbus:read": {"description": "See leases, jobs and logs of Nimbus"},
    "custom:nimbus:use": {
        "description": "Hold leases and run jobs of Nimbus",
        "subscopes": ["custom:nimbus:read"],
    },
    "custom:nimbus:admin": {
        "description": "See and end the leases and jobs of everybody",
        "subscopes": ["custom:nimbus:use"],
    },
}
own_scopes = ["custom:nimbus:read!user", "custom:nimbus:use!user"]
c.JupyterHub.extra_user_scopes = {"access:services!service=nimbus", *own_scopes}
c.Spawner.server_token_scopes = [
    "users:activity!user",
    "access:servers!server",
    "access:services!service=nimbus",
    *own_scopes,
]

# The service -----------------------------------------------------------------------------

service = ["--state", str(state.directory)]
if own_config:
    service += ["--config", own_config]
spawner_token = kept_token(state.secrets, "spawner_token")

c.JupyterHub.services = [
    {
        "name": "nimbus",
        "url": addresses.service_url,
        "command": [sys.executable, "-m", "nimbus_hub.up.service", *service],
        "api_token": kept_token(state.secrets, "service_token"),
        "environment": {
            "NIMBUS_HUB_STATE": str(state.directory),
            "NIMBUS_API_URL": addresses.api_url,
            "HOME": own_home(),
        },
        "cwd": str(state.directory),
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [*own_scopes, "custom:nimbus:admin"],
    },
    # The spawner acts for every user, with a token that never leaves the hub.
    {"name": "nimbus-spawner", "api_token": spawner_token, "display": False},
]
# Put other administrators into this group, or name it in your own file's load_groups.
c.JupyterHub.load_groups = {"nimbus-admins": {"users": [owner]}}
c.JupyterHub.load_roles = [
    {
        # Looks up who calls, and stops servers whose lease is over.
        "name": "nimbus",
        "scopes": ["read:users", "list:users", "read:servers", "servers"],
        "services": ["nimbus"],
    },
    {
        "name": "nimbus-spawner",
        "scopes": ["custom:nimbus:admin", "access:services!service=nimbus", "read:users:name"],
        "services": ["nimbus-spawner"],
    },
    {
        "name": "nimbus-admin",
        "scopes": ["custom:nimbus:admin", "access:services!service=nimbus"],
        "groups": ["nimbus-admins"],
    },
]

# Sessions --------------------------------------------------------------------------------

c.JupyterHub.spawner_class = NimbusLocalSpawner
c.NimbusSpawner.service_url = f"{addresses.service_url}/services/nimbus"
c.NimbusSpawner.service_token = spawner_token
c.NimbusSpawner.public_service_url = addresses.api_url
c.NimbusLocalSpawner.record_dir = str(state.sessions)
c.JupyterHub.template_paths = [str(Path(nimbus_spawner.__file__).parent / "templates")]

# Sessions outlive the hub and are found again.
c.JupyterHub.cleanup_servers = False
# Answer a start request soon and show the progress page; what is refused at once is still
# answered with its reason.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.2}

if own_config:
    load_subconfig(own_config)  # noqa: F821

# With internal SSL only the service is still reached without, on this machine: JupyterHub 6.1
# could not look whether it is there, and would end.
if c.JupyterHub.get("internal_ssl", False):
    c.ConfigurableHTTPProxy.api_url = f"https://127.0.0.1:{addresses.proxy_api_port}"
    if "hub_connect_ip" in c.JupyterHub and "trusted_alt_names" not in c.JupyterHub:
        c.JupyterHub.trusted_alt_names = [alt_name(c.JupyterHub.hub_connect_ip)]

# An environment is the same software in sessions as in jobs.
environments = dict(c.NimbusHub.environments) if "environments" in c.NimbusHub else {}
bins = {name: given["bin"] for name, given in environments.items() if given.get("bin")}
images = {name: given["image"] for name, given in environments.items() if given.get("image")}
if bins and "environment_bins" not in c.NimbusLocalSpawner:
    c.NimbusLocalSpawner.environment_bins = bins
if images and "environment_images" not in c.NimbusDockerSpawner:
    c.NimbusDockerSpawner.environment_images = images

# Who shares an account shares everything: users whom this hub could not keep apart are refused
# now, and not only when they start a session.
if c.JupyterHub.spawner_class is NimbusLocalSpawner and os.geteuid() != 0:
    for user in sorted(set(c.Authenticator.allowed_users) - {owner}):
        raise SystemExit(refusal(user, own_name(), is_root=False))
