"""The notifiers: what arrives at a real mail server and a real web server, and what is refused.

Servers are started and waited for, since what is checked is what arrives there.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import ssl
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from certipy import Certipy

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.model.notice import Notice, NoticeKind
from nimbus_hub.notifiers.base import NotifierError, Undeliverable
from nimbus_hub.notifiers.registry import read_notifiers
from nimbus_hub.notifiers.smtp import SmtpNotifier
from nimbus_hub.notifiers.webhook import SIGNATURE, WebhookNotifier
from tests.receiver import Receiver, receiving

T = TypeVar("T")
ROOT = Path(__file__).parents[2]

NOTICE = Notice(
    id="l-1.lease-ended",
    kind=NoticeKind.LEASE_ENDED,
    user="ada",
    title="Your session has ended",
    text="Your session ended at 14:02 UTC: its lease ran out.",
    url="https://hub.example.org/hub/home",
    time=datetime(2026, 11, 23, 14, 2, tzinfo=UTC),
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def secret(tmp_path: Path, text: str) -> str:
    path = tmp_path / "secret"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


@dataclass
class Mailbox:
    """What a mail server took."""

    messages: list[EmailMessage] = field(default_factory=list)
    rejects: bool = False

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: object, session: object, envelope: Any, address: str, options: object
    ) -> str:
        if self.rejects:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        found = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.messages.append(found)
        return "250 OK"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def mail_port(mailbox: Mailbox) -> Iterator[int]:
    """A mail server without encryption; return its port."""
    yield from _serving(mailbox)


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    """The certificate of the authority behind the secure mail server."""
    certipy = Certipy(store_dir=str(tmp_path / "tls"))
    certipy.create_ca("authority")
    certipy.create_signed_pair("mail", "authority", alt_names=["IP:127.0.0.1"])
    return str(tmp_path / "tls" / "authority" / "authority.crt")


@pytest.fixture
def secure_mail_port(mailbox: Mailbox, ca_file: str) -> Iterator[int]:
    """A mail server that takes mail after STARTTLS and log-in alone; return its port."""
    pair = Path(ca_file).parents[1] / "mail"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair / "mail.crt", pair / "mail.key")

    def is_known(*said: Any) -> AuthResult:
        is_right = (said[-1].login, said[-1].password) == (b"nimbus", b"s3cret")
        return AuthResult(success=is_right, handled=False)

    yield from _serving(
        mailbox,
        tls_context=context,
        require_starttls=True,
        authenticator=is_known,
        auth_required=True,
    )


def _serving(mailbox: Mailbox, **options: Any) -> Iterator[int]:
    """Run a mail server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, loop).result(10)

    async def end() -> None:
        server.close()
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - connections that close
            await asyncio.sleep(0.01)

    def factory() -> SMTP:
        return SMTP(mailbox, hostname="mail.example.org", loop=loop, **options)

    server = run(loop.create_server(factory, "127.0.0.1", 0))
    yield server.sockets[0].getsockname()[1]
    run(end())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


# Mail


def test_a_notice_is_a_mail_to_its_user(mailbox: Mailbox, mail_port: int) -> None:
    notifier = SmtpNotifier(
        "127.0.0.1",
        "Nimbus Hub <nimbus@example.org>",
        to="{user}@example.org",
        port=mail_port,
        security="none",
    )
    notifier.notify(NOTICE)
    (message,) = mailbox.messages
    assert message["Subject"] == "Your session has ended"
    assert message["To"] == "ada@example.org"
    assert message["From"] == "Nimbus Hub <nimbus@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == "<l-1.lease-ended@nimbus-hub.example.org>"
    assert message.get_content().splitlines() == [NOTICE.text, "", NOTICE.url]


def test_who_is_listed_gets_mail_there_and_who_has_no_address_none(
    mailbox: Mailbox, mail_port: int
) -> None:
    notifier = SmtpNotifier(
        "127.0.0.1",
        "nimbus@example.org",
        addresses={"ada": "countess@example.org"},
        port=mail_port,
        security="none",
    )
    notifier.notify(NOTICE)
    notifier.notify(_to("bob"))
    assert [message["To"] for message in mailbox.messages] == ["countess@example.org"]


def test_mail_goes_out_after_starttls_and_log_in(
    mailbox: Mailbox, secure_mail_port: int, ca_file: str, tmp_path: Path
) -> None:
    def notifier(password: str) -> SmtpNotifier:
        return SmtpNotifier(
            "127.0.0.1",
            "nimbus@example.org",
            to="{user}@example.org",
            port=secure_mail_port,
            login="nimbus",
            password_file=secret(tmp_path, password),
            ca_file=ca_file,
        )

    notifier("s3cret").notify(NOTICE)
    assert len(mailbox.messages) == 1
    with pytest.raises(Undeliverable, match=r"^127\.0\.0\.1 answered 535$"):
        notifier("wr0ng").notify(NOTICE)
    assert len(mailbox.messages) == 1


def test_a_mail_server_that_nobody_vouches_for_gets_no_password(
    mailbox: Mailbox, secure_mail_port: int, tmp_path: Path
) -> None:
    notifier = SmtpNotifier(
        "127.0.0.1",
        "nimbus@example.org",
        to="{user}@example.org",
        port=secure_mail_port,
        login="nimbus",
        password_file=secret(tmp_path, "s3cret"),
    )
    with pytest.raises(NotifierError, match="SSLCertVerificationError"):
        notifier.notify(NOTICE)
    assert mailbox.messages == []


@pytest.mark.parametrize("user", ["a b", "a,eve@example.com", "a>\nBcc: eve@example.com", "a@b"])
def test_a_name_that_is_no_mailbox_gets_no_mail(
    mailbox: Mailbox, mail_port: int, user: str
) -> None:
    notifier = SmtpNotifier(
        "127.0.0.1", "nimbus@example.org", "{user}@example.org", port=mail_port, security="none"
    )
    with pytest.raises(Undeliverable, match="must be a mail address"):
        notifier.notify(_to(user))
    assert mailbox.messages == []


def test_what_a_mail_server_refuses_is_not_tried_again_and_silence_is(
    mailbox: Mailbox, mail_port: int
) -> None:
    mailbox.rejects = True
    notifier = SmtpNotifier(
        "127.0.0.1", "nimbus@example.org", "{user}@example.org", port=mail_port, security="none"
    )
    with pytest.raises(Undeliverable, match="does not take mail for ada@"):
        notifier.notify(NOTICE)
    nobody = SmtpNotifier(
        "127.0.0.1", "nimbus@example.org", "{user}@example.org", port=9, security="none"
    )
    with pytest.raises(NotifierError, match=r"does not answer \(ConnectionRefusedError\)") as found:
        nobody.notify(NOTICE)
    assert not isinstance(found.value, Undeliverable)


# Webhook


def test_a_webhook_gets_the_notice_signed(receiver: Receiver, tmp_path: Path) -> None:
    notifier = WebhookNotifier(receiver.url, secret_file=secret(tmp_path, "key"))
    notifier.notify(NOTICE)
    ((headers, body),) = receiver.posted
    assert json.loads(body) == {
        "id": "l-1.lease-ended",
        "kind": "lease-ended",
        "user": "ada",
        "title": "Your session has ended",
        "text": "Your session ended at 14:02 UTC: its lease ran out.",
        "url": "https://hub.example.org/hub/home",
        "time": "2026-11-23T14:02:00+00:00",
    }
    assert headers["Content-Type"] == "application/json"
    assert headers[SIGNATURE] == f"sha256={hmac.new(b'key', body, hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize(
    ("status", "error"), [(503, NotifierError), (429, NotifierError), (404, Undeliverable)]
)
def test_a_webhook_that_is_busy_is_tried_again_and_one_that_is_gone_is_not(
    receiver: Receiver, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    receiver.statuses = [status]
    notifier = WebhookNotifier(url_file=secret(tmp_path, f"{receiver.url}?token=s3cret"))
    with pytest.raises(NotifierError) as caught:
        notifier.notify(NOTICE)
    assert type(caught.value) is error
    assert str(caught.value) == f"127.0.0.1 answered {status}"


def test_an_address_that_is_a_secret_is_in_no_error(tmp_path: Path) -> None:
    notifier = WebhookNotifier(url_file=secret(tmp_path, "http://127.0.0.1:9/s3cret"))
    with pytest.raises(NotifierError, match=r"^127.0.0.1 does not answer \(ConnectError\)$"):
        notifier.notify(NOTICE)


# Settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pigeon": {}}, "pigeon: there is no such notifier; installed are smtp, webhook"),
        ({"smtp": []}, "smtp: its settings must be a dict, got list"),
        ({"smtp": {"host": "mail"}}, "smtp: missing a required argument: 'sender'; it takes host,"),
        ({"webhook": {"uri": "x"}}, "webhook: got an unexpected keyword argument 'uri'; it takes"),
        (
            {"webhook": {"url": "ftp://x"}},
            "webhook: url must be like https://example.org/hook",
        ),
        ({"webhook": {}}, "webhook: give url, or url_file where the address is a secret"),
        (
            {"webhook": {"url": "https://x", "events": ["end"]}},
            "webhook: there is no event 'end'; there are lease-warning, lease-ended, idle-warning",
        ),
        (
            {"webhook": {"url": "https://x", "events": "job-ended"}},
            "webhook: events must be",
        ),
        (
            {"smtp": {"host": "mail", "sender": "nimbus", "to": "{user}@x.org"}},
            "smtp: sender must be a mail address, got 'nimbus'",
        ),
        (
            {"smtp": {"host": "mail", "sender": "n@x.org", "to": "{user}"}},
            "smtp: to must be a mail address, got 'ada'",
        ),
        ({"smtp": {"host": "mail", "sender": "n@x.org"}}, "smtp: give to, like {user}@example.org"),
        (
            {"smtp": {"host": "m", "sender": "n@x.org", "to": "{user}@x.org", "security": "tls"}},
            "smtp: security must be one of starttls, ssl, none, got 'tls'",
        ),
        (
            {"smtp": {"host": "m", "sender": "n@x.org", "to": "{user}@x.org", "login": "n"}},
            "smtp: login and password_file belong together",
        ),
    ],
)
def test_wrong_settings_are_refused_with_what_is_wrong(
    given: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_notifiers(given)
    assert caught.value.message.startswith(sentence)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = Path(secret(tmp_path, "s3cret"))
    path.chmod(0o640)
    with pytest.raises(InvalidRequest, match="can be read by others; run: chmod 600") as caught:
        WebhookNotifier("https://example.org", secret_file=str(path))
    assert "s3cret" not in caught.value.message
    with pytest.raises(InvalidRequest, match=r"none cannot be read \(.*No such file"):
        WebhookNotifier("https://example.org", secret_file=str(tmp_path / "none"))


def _to(user: str) -> Notice:
    return replace(NOTICE, user=user)


# Plug-ins


def test_the_plug_in_of_the_documentation_works_when_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "notifications.md").read_text()
    text = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "Wall" in block
    )
    points = re.findall(r"```toml\n(.*?)```", page, re.S)[0]
    (tmp_path / "nimbus_wall.py").write_text(text)
    info = tmp_path / "nimbus_wall-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nimbus-wall\nVersion: 1.0\n")
    # What pyproject.toml says, in the form that it is installed in.
    installed = points.replace(
        'project.entry-points."nimbus_hub.notifiers"', "nimbus_hub.notifiers"
    )
    (info / "entry_points.txt").write_text(installed.replace('"', ""))
    wall = tmp_path / "wall"
    wall.write_text(f"#!/bin/sh\ncat > {tmp_path}/said\n")
    wall.chmod(0o700)
    monkeypatch.syspath_prepend(str(tmp_path))
    (route,) = read_notifiers({"wall": {"program": str(wall), "events": ["lease-ended"]}})
    route.notifier.notify(NOTICE)
    assert (tmp_path / "said").read_text() == f"ada: {NOTICE.text}"
    assert route.kinds == {NoticeKind.LEASE_ENDED}


def test_a_plug_in_that_cannot_be_loaded_is_refused_without_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "nimbus_bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nimbus-bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nimbus_hub.notifiers]\nbad = nimbus_bad:Bad\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidRequest, match="bad: nimbus_bad:Bad cannot be loaded: No module"):
        read_notifiers({"bad": {"token": "s3cret"}})
    (tmp_path / "nimbus_bad.py").write_text(
        "class Bad:\n    def __init__(self, token):\n        raise ValueError(token)\n"
    )
    with pytest.raises(InvalidRequest) as caught:
        read_notifiers({"bad": {"token": "s3cret"}})
    assert caught.value.message == "bad: nimbus_bad:Bad failed: ValueError"
