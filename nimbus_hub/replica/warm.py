"""Keeps a replica warm, and has runs begin in processes that are forked from it.

Called as ``python -I -S warm.py DIRECTORY [READY_FD]`` with a holder's record, of which it
keeps all that supervisor.py does. The holder's main process is the environment's python
with forkserver.py; it counts as running once that has imported its modules.

    this process, the supervisor of holder and run
    ├── the holder: imports the modules, and forks
    └── the spare, forked ahead of time; the run, once there is one
        └── whatever the run starts

In the record's directory is a ``socket``. A line of JSON on a connection asks for something:

    {"record": PATH}    run the replica of that record. If this is not ready the connection
                        closes at once and the record was not touched; else this is its
                        supervisor, as supervisor.py is that of others, until its end.
    {"watch": PATH}     only tell of it

Then a byte comes for each change of its status, and the connection closes at its end. There
is one run at a time. It is over when its main process is: what is left of it, which is all
that is below this process but the holder, is killed before the end is recorded. What a fork
cannot do right is started here as supervisor.py would. SIGTERM ends all; to end the run, or
its input, is asked for by SIGUSR1, since it may come too late and must not hit another.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH110, PTH118, PTH120

import json
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nimbus_hub.replica import runs, spares, supervision
else:
    sys.path.insert(0, os.path.dirname(__file__))
    import runs
    import spares
    import supervision

DEBUGGING = "waits in its debugger (post-mortem)"
NO_DEBUGGER = (
    b"nimbus: there is no debugger in this run, for it cannot be forked from its warm replica: it "
    b"is no program of python's, or sets what is read at a start, like OMP_NUM_THREADS\n"
)
LONGEST_LINE = 65536


def main(arguments: "list[str]") -> int:
    """Keep the replica warm whose record is the directory given; return the exit code."""
    ready = int(arguments[2]) if len(arguments) > 2 else -1
    if ready >= 0:
        os.set_inheritable(ready, False)
    os.chdir(arguments[1])
    wake, sink = os.pipe()
    for descriptor in (wake, sink):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(sink)
    for number in supervision.SIGNALS:
        # Only so that it interrupts what waits.
        signal.signal(number, lambda *_: None)
    if supervision.take(".") < 0:
        return 0
    keeper = Keeper(supervision.load("spec.json"), wake, ready)
    # Who stops writes stop.json first and then looks for supervisor.json: one sees the other.
    if os.path.exists("stop.json"):
        keeper.holder.record_end(None, "stopped before it was started")
    else:
        keeper.keep()
    return 0


class Keeper:
    """The loop over the holder and the run: what has happened, what is due."""

    def __init__(self, spec: "dict[str, Any]", wake: int, ready: int) -> None:
        self.holder = supervision.Replica(spec)
        self.wake = wake
        self.ready = ready
        self.warm_pid = 0
        self.poller = spares.Poller()
        self.server = spares.Server(self.holder, self.poller)
        self.run = None  # type: runs.Run | None
        self.refused = []  # type: list[runs.Run]
        self.waiting = None  # type: tuple[socket.socket, str] | None
        self.is_stopping = False
        self.is_over = False

    def keep(self) -> None:
        """Keep the holder warm until it is asked to end, or ends by itself too often."""
        supervision.become_subreaper()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.bind("socket")
        listener.listen(8)
        self.poller.follow(self.wake, self.hear_signals)
        self.poller.follow(listener.fileno(), lambda: self.accept(listener))
        while not self.is_over:
            now = time.monotonic()
            self.step(now)
            self.poller.wait(self.moments(now))
            self.reap()

    def step(self, now: float) -> None:
        """Do what is due."""
        self.refused = [run for run in self.refused if now < run.again_at or not run.conclude()]
        if self.run is not None:
            if self.run.exit_code is None:
                self.run.kill_late()
            elif now >= self.run.again_at:
                self.end_run(self.run)
        self.holder.kill_late()
        if self.server.is_dead:
            self.note_death()
        server, spare = self.server, self.server.spare
        if self.is_stopping or server.failure:
            if self.run is None:
                self.end()
        elif now < server.again_at:
            return
        elif server.control is None:
            server.start()
            # Once more, since that may have failed.
            self.step(now)
        elif self.run is not None:
            self.run.spared = server.pid
        elif server.is_ready and spare is None:
            server.ask(self.hear_spare)
        elif spare is not None and spare.pid and self.waiting is not None:
            self.begin(spare, *self.waiting)

    def moments(self, now: float) -> "list[float]":
        """Return when something will be due by itself that was not yet."""
        again = [self.server.again_at, *(run.again_at for run in self.unfinished())]
        moments = [moment for moment in again if moment > now]
        replicas = [self.holder, *self.unfinished()]
        return moments + [one.deadline for one in replicas if one.deadline is not None]

    def unfinished(self) -> "list[runs.Run]":
        """Return the runs whose end is not recorded yet."""
        return self.refused if self.run is None else [*self.refused, self.run]

    def hear_signals(self) -> None:
        """Do what signals ask for; that of a child's end only wakes this process up."""
        numbers = os.read(self.wake, LONGEST_LINE)
        run = self.run
        if signal.SIGUSR1 in numbers and run is not None:
            run.end_input()
            if os.path.exists(run.file("stop.json")):
                run.begin_stop()
        if signal.SIGTERM in numbers:
            self.is_stopping = True
            self.holder.limit_grace(".")
            if run is not None:
                run.limit_grace(".")
                run.begin_stop()

    def accept(self, listener: socket.socket) -> None:
        """Take a connection; only the service's account can reach the socket."""
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self.poller.follow(connection.fileno(), lambda: self.hear(connection))

    def hear(self, connection: socket.socket) -> None:
        """Do what a connection asks for, in one piece."""
        self.poller.forget(connection.fileno())
        try:
            request = json.loads(connection.recv(LONGEST_LINE).decode("utf-8"))
        except (OSError, ValueError):
            request = {}
        path = request.get("record")
        watched = [run for run in self.unfinished() if run.path == request.get("watch")]
        if watched:
            watched[0].watchers.append(connection)
        elif path is None or self.is_stopping or not self.server.is_ready:
            connection.close()
        elif self.run is None and self.waiting is None:
            self.waiting = connection, path
        else:
            self.refuse(connection, path, "another run is going on where it was to run")

    def note_death(self) -> None:
        """Leave nothing of a holder that is gone, unless a run is going on."""
        self.server.note_death()
        if self.run is None:
            self.server.drop_spare()
            self.clear()
        if self.waiting is not None:
            # It is better off with a new python.
            self.waiting[0].close()
            self.waiting = None

    def hear_spare(self) -> None:
        """Take the spare's word: that it is there, and what it makes of a run."""
        spare, run = self.server.spare, self.run
        assert spare is not None
        messages = spare.messages()
        if messages is None:
            self.poller.forget(spare.own.fileno())
            if run is None:
                self.server.drop_spare(spares.PAUSE_SECONDS)
            return
        for message in messages:
            if not spare.pid:
                if spare.introduce(message.get("pid")):
                    self.note_warm()
            elif run is None:
                continue
            elif message.get("is_debugging"):
                run.begun(DEBUGGING)
            elif message.get("is_taken"):
                run.begun()
            elif not run.is_begun and not run.was_stopped:
                self.server.is_stale = bool(message.get("is_stale"))
                self.start_new(run)

    def note_warm(self) -> None:
        """Record that a run could begin."""
        if self.warm_pid != self.holder.child:
            self.warm_pid = self.holder.child
            self.holder.record_running()
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1

    def begin(self, spare: "spares.Spare", connection: socket.socket, path: str) -> None:
        """Have the spare become the replica of a record."""
        self.waiting = None
        lock = -1
        try:
            lock = supervision.take(path, holder=self.holder.spec["id"])
            if lock < 0:
                connection.close()
                return
            spec = supervision.load(os.path.join(path, "spec.json"))
            run = runs.Run(spec, path, lock, connection)
            if os.path.exists(run.file("stop.json")):
                self.refuse(connection, path, "stopped before it was started", lock)
                return
            run.streams = run.open_streams()
        except (OSError, ValueError) as error:
            self.refuse(connection, path, "it cannot be started: %s" % error, lock)
            return
        self.run = run
        run.spared = self.server.pid
        run.child = spare.pid
        run.give(spare)

    def refuse(self, connection: socket.socket, path: str, reason: str, lock: int = -1) -> None:
        """Record that a replica cannot run, unless it is another supervisor's."""
        try:
            if lock < 0:
                lock = supervision.take(path, holder=self.holder.spec["id"])
        except OSError as error:
            sys.stderr.write("cannot take %s to refuse it: %s\n" % (path, error))
        if lock < 0:
            connection.close()
            return
        run = runs.Run({}, path, lock, connection)
        run.problem = reason
        if not run.conclude():
            self.refused.append(run)

    def start_new(self, run: runs.Run) -> None:
        """Start a run in the ordinary way, since a fork would not do."""
        assert self.server.spare is not None
        self.poller.forget(self.server.spare.own.fileno())
        self.server.spare.kill()
        run.exit_code = None
        assert run.streams is not None
        streams, run.streams = run.streams, None
        if run.spec.get("env", {}).get("NIMBUS_PDB") == "1":
            supervision.send(os.write, streams[1], NO_DEBUGGER)
        problem = run.start(*streams)
        if problem:
            run.is_begun = True
            code, _, run.problem = problem.partition(" ")
            run.exit_code = int(code)
        else:
            run.begun()

    def end_run(self, run: runs.Run) -> None:
        """Leave nothing of a run that is over, and record its end."""
        spare = self.server.spare
        assert spare is not None
        if spare.own.fileno() in self.poller.actions:
            self.hear_spare()
            if run.exit_code is None:
                return  # It was started anew.
        if not run.is_begun and not run.was_stopped:
            self.start_new(run)
            return
        self.clear()
        if not run.conclude():
            return
        self.run = None
        self.server.drop_spare()
        if self.server.is_stale:
            self.server.renew()

    def end(self) -> None:
        """End the holder, and this process once it is gone."""
        if self.server.control is None:
            self.clear()
            reason = self.server.failure or self.holder.reason()
            self.holder.record_end(self.holder.exit_code, reason)
            self.is_over = True
        elif not self.holder.was_stopped:
            self.holder.was_stopped = True
            self.holder.signal_all(signal.SIGTERM)

    def clear(self) -> None:
        """Kill all but the holder's main process, and wait until it is gone."""
        end = time.monotonic() + supervision.PATIENCE_SECONDS
        while time.monotonic() < end:
            self.reap()
            rest = supervision.descendants(os.getpid(), self.server.pid)
            if not rest:
                return
            for pid, _, _ in rest:
                supervision.send(os.kill, pid, signal.SIGKILL)
            time.sleep(0.002)

    def reap(self) -> None:
        """Collect every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.holder.child:
                self.holder.note_end(status)
            elif self.run is not None and pid == self.run.child:
                self.run.note_end(status)
            if self.server.spare is not None and pid == self.server.spare.pid:
                self.server.spare.note_end()
                if self.run is None:
                    self.server.drop_spare(spares.PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
