"""On top of the hub's own configuration: who measures may start and stop sessions."""

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
