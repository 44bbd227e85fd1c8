"""On top of the hub's own configuration: who measures may start and stop sessions.

Sessions are forked warm, or started cold, as a hub of its own does to be measured.
"""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.JupyterHub.services.append({"name": "bench", "api_token": os.environ["BENCH_TOKEN"]})
c.JupyterHub.load_roles.append(
    {
        "name": "bench",
        "scopes": ["admin:servers", "read:users", "tokens", "inherit"],
        "services": ["bench"],
    }
)
c.NimbusLocalSpawner.warm = os.environ["BENCH_WARM"] == "1"
