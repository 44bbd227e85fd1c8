"""Runs one replica to its end and leaves on disk what became of it.

Called as ``python -I -S supervisor.py DIRECTORY [READY_FD]``. It belongs to no service: it
is started in a session of its own, keeps no connection, and is found again by what is in
the directory (every file but the log is replaced whole, by rename):

    spec.json        read: argv, env, cwd, account, cgroups, grace_seconds, directory, ...
    input            a pipe, if the replica has an input; what is written there it reads
    lock             held while this process lives; who does not get it goes away
    supervisor.json  pid, start_time (ticks since boot) and boot_id of this process
    stop.json        read: {"grace_seconds": n}; written by who asks for the end, before SIGTERM
    input.end        read: that it is there; written by who ends the input, before SIGUSR1
    status.json      {"state": "running", "pid", ...}, then {"state": "exited", "cpu_seconds", ...}
    output.log       standard output and error, written by the replica itself

The replica's processes are all descendants of this one (it is the subreaper), so none can
hide from it. The replica is over when its main process is: what is left then is killed
before the end is recorded, so that the log is complete when the record says exited.

Python 3.6 and later, standard library only.
"""

# ruff: noqa: PTH110, PTH120

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nimbus_hub.replica import supervision
else:
    sys.path.insert(0, os.path.dirname(__file__))
    import supervision


def main(arguments: "list[str]") -> int:
    """Run the replica whose record is the directory given; return this process's exit code."""
    ready = int(arguments[2]) if len(arguments) > 2 else -1
    if ready >= 0:
        os.set_inheritable(ready, False)
    os.chdir(arguments[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, supervision.SIGNALS)
    if supervision.take(".") < 0:
        return 0
    supervisor = Supervisor(supervision.load("spec.json"))
    # Who stops writes stop.json first and then looks for supervisor.json: one sees the other.
    if os.path.exists("stop.json"):
        supervisor.record_end(None, "stopped before it was started")
    else:
        supervisor.run(ready)
    return 0


class Supervisor(supervision.Replica):
    """The one replica of this process."""

    def run(self, ready: int) -> None:
        """Start the main process, wait for its end and record it."""
        supervision.become_subreaper()
        problem = self.start(*self.open_streams())
        if problem:
            code, _, reason = problem.partition(" ")
            self.record_end(int(code), reason)
            return
        self.record_running()
        if ready >= 0:
            os.close(ready)
        while self.exit_code is None:
            self.wait()
        self.kill_rest()
        self.record_end(self.exit_code, self.reason())

    def wait(self) -> None:
        """Wait for a child's end, a request to stop, or the end of the grace."""
        if self.deadline is None:
            happened = signal.sigwaitinfo(supervision.SIGNALS)  # type: signal.struct_siginfo | None
        else:
            left = max(0.0, self.deadline - time.monotonic())
            happened = signal.sigtimedwait(supervision.SIGNALS, left)
        self.reap()
        if self.exit_code is not None:
            return
        if happened is not None and happened.si_signo == signal.SIGTERM:
            self.begin_stop()
        elif happened is not None and happened.si_signo == signal.SIGUSR1:
            self.end_input()
        self.kill_late()

    def reap(self) -> "bool":
        """Collect every child that has ended; tell whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child:
                self.note_end(status)

    def kill_rest(self) -> None:
        """Kill what the main process left behind and wait until it is gone."""
        end = time.monotonic() + supervision.PATIENCE_SECONDS
        while self.reap() and time.monotonic() < end:
            self.signal_all(signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
