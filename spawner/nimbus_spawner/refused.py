"""How a start that is refused is told to people."""

from __future__ import annotations

from jupyterhub.spawner import SpawnException
from markupsafe import Markup

from nimbus_hub.errors import Forbidden, InvalidRequest, NimbusError

__all__ = ["refused", "status_of"]


def refused(message: str, reason: str, status_code: int) -> SpawnException:
    """Return an exception that JupyterHub shows to people as its message, without a traceback."""
    text = Markup.escape(message)
    html = Markup('<span class="nimbus-refused" style="white-space: pre-wrap">{}</span>').format(
        text
    )
    found = SpawnException(message, reason=reason, message_html=html, status_code=status_code)
    # The form and the progress page look for these names, the error page for those above.
    found.jupyterhub_message = message
    found.jupyterhub_html_message = html
    return found


def status_of(error: NimbusError) -> int:
    """Return the HTTP status of an error of the service."""
    if isinstance(error, Forbidden):
        return 403
    return 400 if isinstance(error, InvalidRequest) else 503
