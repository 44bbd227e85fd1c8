"""Notices as JSON to an address: chat rooms, pagers, own programs.

The body has the fields of the notice. With a secret, the header ``X-Nimbus-Signature`` is
``sha256=`` and the HMAC-SHA256 of the body in hex, as GitHub signs its webhooks
(https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.notice import Notice
from nimbus_hub.notifiers.base import NotifierError, Undeliverable
from nimbus_hub.notifiers.settings import secret_of, text

__all__ = ["SIGNATURE", "WebhookNotifier"]

SIGNATURE = "X-Nimbus-Signature"

_SECONDS = 10.0
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class WebhookNotifier:
    """Posts notices to ``url``, or to what stands in ``url_file`` where that is a secret."""

    def __init__(self, url: str = "", url_file: str = "", secret_file: str = "") -> None:
        if bool(url) == bool(url_file):
            raise InvalidRequest("give url, or url_file where the address is a secret")
        self._url = text("url", url) if url else secret_of("url_file", url_file)
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            told = repr(url) if url else f"that in {url_file}"
            raise InvalidRequest(f"url must be like https://example.org/hook, got {told}")
        self._host = parts.hostname
        self._secret = secret_of("secret_file", secret_file).encode() if secret_file else b""

    def notify(self, notice: Notice) -> None:
        """Post a notice; what the receiver refuses is undeliverable."""
        content = json.dumps({**asdict(notice), "time": notice.time.isoformat()}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "nimbus-hub"}
        if self._secret:
            digest = hmac.new(self._secret, content, hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={digest}"
        try:
            answer = httpx.post(self._url, content=content, headers=headers, timeout=_SECONDS)
        except httpx.HTTPError as error:
            # Its text may have the address.
            raise NotifierError(f"{self._host} does not answer ({type(error).__name__})") from None
        if answer.is_success:
            return
        told = f"{self._host} answered {answer.status_code}"
        if answer.is_server_error or answer.status_code in _LATER:
            raise NotifierError(told)
        raise Undeliverable(told)
