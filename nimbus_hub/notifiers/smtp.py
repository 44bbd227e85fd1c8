"""Notices as mail, through a server of the site."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.notice import Notice
from nimbus_hub.notifiers.base import NotifierError, Undeliverable
from nimbus_hub.notifiers.settings import chosen, secret_of, text

__all__ = ["SmtpNotifier", "mail"]

_SECONDS = 20.0
_PORTS = {"starttls": 587, "ssl": 465, "none": 25}
_USER = "{user}"
_REFUSED = 500
"""From this reply code on the same mail is refused again (RFC 5321, 4.2.1)."""


class SmtpNotifier:
    """Sends each notice as a mail of its own.

    ``to`` is the address of a user, with ``{user}`` for the name; ``addresses`` are those of
    some users by name, which win. Who has no address gets no mail. ``security`` is
    ``starttls``, ``ssl`` or ``none``; ``ca_file`` has certificates to trust beside the system's.
    """

    def __init__(
        self,
        host: str,
        sender: str,
        to: str = "",
        addresses: Mapping[str, str] | None = None,
        port: int = 0,
        security: str = "starttls",
        login: str = "",
        password_file: str = "",
        ca_file: str = "",
    ) -> None:
        self._host = text("host", host)
        self._security = chosen("security", security, tuple(_PORTS))
        self._port = port or _PORTS[self._security]
        if not isinstance(self._port, int) or not 0 < self._port < 65536:
            raise InvalidRequest(f"port must be from 1 to 65535, got {port!r}")
        if bool(login) != bool(password_file):
            raise InvalidRequest("login and password_file belong together, got only one of them")
        if login and self._security == "none":
            raise InvalidRequest("login needs security 'starttls' or 'ssl', got 'none'")
        self._login = login
        self._password = secret_of("password_file", password_file) if password_file else ""
        self._context = _context(ca_file)
        self._sender = _address("sender", sender)
        self._to = to and text("to", to)
        self._addresses = dict(addresses or {})
        if not self._to and not self._addresses:
            raise InvalidRequest(f"give to, like {_USER}@example.org, or addresses by user")
        for user, address in [("ada", self._to), *self._addresses.items()]:
            if address:
                _address("to", address.replace(_USER, user))

    def notify(self, notice: Notice) -> None:
        """Send a notice, if its user has an address."""
        to = self._addresses.get(notice.user) or self._to.replace(_USER, notice.user)
        if not to:
            return
        try:
            message = mail(notice, self._sender, _address("to", to))
        except InvalidRequest as error:
            raise Undeliverable(error.message) from None
        try:
            self._send(message)
        except smtplib.SMTPRecipientsRefused as error:
            told = f"{self._host} does not take mail for {to}"
            if any(code < _REFUSED for code, _ in error.recipients.values()):
                raise NotifierError(f"{told} now") from None
            raise Undeliverable(told) from None
        except smtplib.SMTPResponseException as error:
            told = f"{self._host} answered {error.smtp_code}"
            if error.smtp_code >= _REFUSED:
                raise Undeliverable(told) from None
            raise NotifierError(told) from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotifierError(f"{self._host} does not answer ({type(error).__name__})") from None

    def _send(self, message: EmailMessage) -> None:
        with self._connected() as server:
            if self._security == "starttls":
                server.starttls(context=self._context)
            if self._login:
                server.login(self._login, self._password)
            server.send_message(message)

    def _connected(self) -> smtplib.SMTP:
        if self._security == "ssl":
            return smtplib.SMTP_SSL(self._host, self._port, timeout=_SECONDS, context=self._context)
        return smtplib.SMTP(self._host, self._port, timeout=_SECONDS)


def mail(notice: Notice, sender: Address, to: Address) -> EmailMessage:
    """Return a notice as a mail."""
    message = EmailMessage()
    message["Subject"] = notice.title
    message["From"] = sender
    message["To"] = to
    message["Date"] = format_datetime(notice.time)
    message["Message-ID"] = f"<{notice.id}@nimbus-hub.{sender.domain}>"
    # Nobody's absence note is to answer it (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{notice.text}\n\n{notice.url}\n")
    return message


def _address(name: str, value: object) -> Address:
    """Read an address like ``Nimbus <nimbus@example.org>``."""
    given = text(name, value)
    display, bracket, rest = given.rpartition("<")
    try:
        if bracket:
            return Address(display.strip(), addr_spec=rest.removesuffix(">"))
        return Address(addr_spec=given)
    except (HeaderParseError, ValueError, IndexError):
        raise InvalidRequest(f"{name} must be a mail address, got {given!r}") from None


def _context(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise InvalidRequest(f"ca_file: {ca_file} cannot be read ({error})") from None
    return context
