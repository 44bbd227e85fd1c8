"""Imports ahead what every session's server needs, and then becomes the server of one.

The process is to be what ``python -m nimbus_spawner.singleuser`` would be with the same
arguments, environment and directory. What the imports took from the environment is of two kinds:

- what is different for every user, like HOME: defaults of a few classes, which are computed
  anew (``_renew``);
- everything else: each variable that was read while importing is noted. If one of them, or of
  those that python itself reads at its start, is another for this session, if the user has
  packages of their own, or if packages have changed on disk, python is started anew in the
  process instead: slower, never wrong.
"""

# ruff: noqa: PTH116, PTH120

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import site
import sys
import sysconfig
import time
import wsgiref.handlers
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nimbus_spawner import singleuser

__all__ = ["READ_AT_START", "Ahead"]

_SERVER = "nimbus_spawner.singleuser"
READ_AT_START = ("GLIBC_", "JUPYTERHUB_SINGLEUSER_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")
"""How the variables begin that decide what a new python is, and which server it imports."""
_RENEWED = {
    *("HOME", "PATH", "USER", "XDG_DATA_HOME"),
    *("JUPYTERHUB_API_URL", "JUPYTERHUB_SERVICE_PREFIX"),
    *("JUPYTERHUB_SSL_CERTFILE", "JUPYTERHUB_SSL_CLIENT_CA", "JUPYTERHUB_SSL_KEYFILE"),
}
"""Read while importing; a session may have others all the same, see ``_renew``."""
_LATE = (
    *("IPython.display", "httpcore", "jinja2.ext", "jupyter_core.migrate"),
    *("jupyter_client.provisioning.local_provisioner", "jupyter_lsp.virtual_documents_shadow"),
    *("notebook_shim.nbserver", "tornado.platform.asyncio"),
)
"""What servers import when they start, and their first kernel, by name."""


class Ahead:
    """A python process that has imported what a server needs.

    ``own`` is the environment it was started with.
    """

    def __init__(self) -> None:
        gc.disable()  # Until the server runs, as in a start.
        self.own = _initial_environment()
        self._read: set[str] = set()
        with self._noting():
            singleuser.import_server()
            for name in _further():
                _import(name)
        self._set = {
            name: value for name, value in os.environ.items() if self.own.get(name) != value
        }
        self._changed = _changed_at(_folders())
        gc.collect()
        # What is never looked at again stays shared between a process and its forks.
        gc.freeze()

    def become(self, args: Sequence[str], env: Mapping[str, str]) -> None:
        """Be the server with these arguments and exactly this environment; do not return.

        The current directory is the server's already.
        """
        reason = self._obstacle(env)
        if reason:
            sys.stderr.write(f"nimbus: this session is not started warm: {reason}\n")
            sys.stderr.flush()
            os.execve(sys.executable, [sys.executable, "-m", _SERVER, *args], dict(env))
        os.environ.clear()
        os.environ.update({**self._set, **env})
        time.tzset()
        _show(["python", "-m", _SERVER, *args], env)
        sys.argv[:] = [str(singleuser.__file__), *args]
        sys.orig_argv[:] = [sys.executable, "-m", _SERVER, *args]
        if not sys.flags.safe_path:
            sys.path[0] = str(Path.cwd())
        sys.modules["__main__"] = singleuser
        _add_user_site(_user_site(env))
        _renew()
        # Python's own is seeded anew by a fork; this is here if an extension has imported it.
        numpy = sys.modules.get("numpy.random")
        if numpy is not None:
            numpy.seed()
        singleuser.main()

    def is_stale(self) -> bool:
        """Tell whether a new python might import something else: packages have changed on disk."""
        for folder, changed in self._changed.items():
            try:
                if os.stat(folder).st_mtime_ns != changed:
                    return True
            except PermissionError:
                continue  # It is closed to the session's account.
            except OSError:
                return True
        return False

    def _obstacle(self, env: Mapping[str, str]) -> str:
        """Return why a new python would do something else than this one, or nothing."""
        names = {name for name in (*env, *self.own) if name.startswith(READ_AT_START)}
        for name in sorted(names | self._read - _RENEWED):
            if env.get(name) != self.own.get(name):
                return f"{name} is not what it was when python was started"
        if self.is_stale():
            return "packages were changed since they were imported"
        return _in_the_way(_user_site(env))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the names of the variables that are looked up."""
        environs: tuple[Any, ...] = (os.environ, os.environb)
        encoders: list[Callable[[Any], bytes]] = [each.encodekey for each in environs]

        def noting(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
            def encoded(key: Any) -> bytes:
                self._read.add(os.fsdecode(key))
                return encode(key)

            return encoded

        for environ, encode in zip(environs, encoders, strict=True):
            environ.encodekey = noting(encode)
        try:
            yield
        finally:
            for environ, encode in zip(environs, encoders, strict=True):
                environ.encodekey = encode


def _further() -> list[str]:
    """Return what a server imports only while it starts: its services, enabled extensions."""
    paths = importlib.import_module("jupyter_core.paths").jupyter_config_path()
    config = importlib.import_module("jupyter_server.extension.config")
    extensions = config.ExtensionConfigManager(read_config_path=paths).get_jpserver_extensions()
    services = importlib.import_module("jupyter_server.serverapp").JUPYTER_SERVICE_HANDLERS
    handlers = [name for names in services.values() for name in names or ()]
    return [*handlers, *(name for name, is_on in extensions.items() if is_on), *_LATE]


def _folders() -> set[str]:
    """Return the directories of what is imported, or could be."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {os.path.dirname(file) for file in files if file}.union(sys.path[1:])


def _changed_at(folders: set[str]) -> dict[str, int]:
    """Return when directories were changed last, those that are there."""
    found = {}
    for folder in folders:
        with suppress(OSError):
            found[folder] = os.stat(folder).st_mtime_ns
    return found


def _import(name: str) -> None:
    """Import a module; one that cannot be only costs the time it would have saved."""
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever an extension does
        sys.stderr.write(f"nimbus: {name} is not imported ahead: {error!r}\n")


def _renew() -> None:
    """Compute anew what was computed from variables in ``_RENEWED``, and from the account."""
    env = os.environ.get
    auth = importlib.import_module("jupyterhub.services.auth").HubAuth
    session = importlib.import_module("jupyter_client.session").Session
    lab = importlib.import_module("jupyterlab.labapp").LabApp
    commands = importlib.import_module("jupyterlab.commands")
    prefix = env("JUPYTERHUB_SERVICE_PREFIX") or "/"
    _set_defaults(
        auth,
        base_url=prefix,
        api_url=env("JUPYTERHUB_API_URL") or auth.api_url.default_value,
        keyfile=env("JUPYTERHUB_SSL_KEYFILE", ""),
        certfile=env("JUPYTERHUB_SSL_CERTFILE", ""),
        client_ca=env("JUPYTERHUB_SSL_CLIENT_CA", ""),
    )
    _set_defaults(session, username=env("USER", "username"))
    _set_defaults(
        lab,
        user_settings_dir=commands.get_user_settings_dir(),
        workspaces_dir=commands.get_workspaces_dir(),
    )
    site.USER_BASE = site.USER_SITE = None
    site.getusersitepackages()
    sysconfig.get_config_vars()["userbase"] = site.getuserbase()
    # It has a copy of the whole environment, so it is imported where nothing is noted.
    wsgiref.handlers.BaseHandler.os_environ = wsgiref.handlers.read_environ()
    trash = sys.modules.get("send2trash.plat_other")
    if trash is not None:
        importlib.reload(trash)


def _set_defaults(owner: Any, **values: str) -> None:
    """Give traits of a class other defaults; its subclasses have them, too."""
    for name, value in values.items():
        getattr(owner, name).default_value = value
    rest = [owner]
    while rest:
        each = rest.pop()
        # Classes keep a copy of them, made when they were set up.
        each.setup_class(dict(each.__dict__))
        rest += each.__subclasses__()


def _user_site(env: Mapping[str, str]) -> Path | None:
    """Return where packages of the user's own are, None if there are none or they do not count."""
    base = env.get("PYTHONUSERBASE") or f"{env.get('HOME', '')}/.local"
    folder = Path(sysconfig.get_path("purelib", "posix_user", {"userbase": base}))
    return folder if site.ENABLE_USER_SITE and folder.is_dir() else None


def _in_the_way(folder: Path | None) -> str:
    """Return why packages of the user's own cannot simply be added, or nothing."""
    for entry in sorted(folder.iterdir()) if folder else ():
        name = entry.name.partition(".")[0]
        if name in sys.modules or name in ("sitecustomize", "usercustomize"):
            return f"there is another {name} in {folder}"
        if entry.suffix == ".pth":
            return f"there is {entry}"
    return ""


def _add_user_site(folder: Path | None) -> None:
    """Have packages of the user's own found where `site` puts them.

    That is before those of all, but behind those of a virtual environment.
    """
    if folder:
        own = f"{sys.prefix}/" if sys.prefix != sys.base_prefix else "\0"
        later = [path for path in site.getsitepackages() if not path.startswith(own)]
        at = min((sys.path.index(path) for path in later if path in sys.path), default=None)
        sys.path.insert(len(sys.path) if at is None else at, str(folder))


def _initial_environment() -> dict[str, str]:
    """Return the environment this process was started with; python itself adds to it."""
    try:
        found = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    pairs = (entry.partition(b"=") for entry in found.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _show(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Have /proc, so ps too, tell the command and the environment, as far as they fit."""
    try:
        status = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    # Addresses of arguments and environment: fields 48 to 51, the command's name is the second.
    bounds = [int(field) for field in status.rpartition(")")[2].split()[45:49]]
    texts = (command, [f"{name}={value}" for name, value in env.items()])
    for begin, end, entries in zip(bounds[::2], bounds[1::2], texts, strict=True):
        area = b""
        for entry in map(os.fsencode, entries):
            if len(area) + len(entry) < end - begin:
                area += entry + b"\0"
        ctypes.memmove(begin, area.ljust(end - begin, b"\0"), end - begin)
