"""Runs a script within a collective of XGBoost, or the tracker that makes one.

Python 3.6 and later, standard library and xgboost only.
"""

import os
import sys
import time
import warnings

from nimbus_hub.replica.runners import script

__all__ = ["main"]

NOBODY_THERE = "Failed to connect to the tracker"
IN_COLLECTIVE = "src/collective/"
GRACE_SECONDS = 10.0
"""A worker whose failure the tracker sees has this long to end by itself."""


def main(arguments: "list[str]") -> None:
    """Be what this replica's role says."""
    if os.environ["NIMBUS_ROLE"] == "tracker":
        track()
    else:
        train(arguments)


def track() -> None:
    """Bring the workers together, and end when all have left."""
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    address, port = os.environ["DMLC_TRACKER_URI"], int(os.environ["DMLC_TRACKER_PORT"])
    workers = int(os.environ["NIMBUS_WORLD_SIZE"])
    # A time-out would also bound how long after the first worker the last one may leave, and
    # rank 0 may evaluate for hours; one that never comes is noticed by the other workers.
    tracker = RabitTracker(workers, address, port, sortby="task", timeout=0)
    tracker.start()
    print("tracker of %d workers at %s:%d" % (workers, address, port), flush=True)
    try:
        tracker.wait_for()
    except XGBoostError as error:
        # It is a worker that failed: what that has to say of it comes first.
        time.sleep(GRACE_SECONDS)
        sys.exit("%s\nnimbus: the tracker has lost a worker" % said(error))


def train(arguments: "list[str]") -> None:
    """Join the others, run the script, and leave when it came to its end."""
    script.wait_for_services(join)
    try:
        script.run(arguments)
    except SystemExit as end:
        if end.code not in (None, 0):
            explain(end.__context__)
            # The tracker would count one that finalizes as done.
            script.leave_at_once(end)
        finish()
        raise
    finish()


def join(address: str, port: int) -> bool:
    """Join the collective; tell whether its tracker was there."""
    from xgboost import collective
    from xgboost.core import XGBoostError

    terms = {
        "dmlc_tracker_uri": address,
        "dmlc_tracker_port": port,
        "dmlc_task_id": os.environ["DMLC_TASK_ID"],
        "dmlc_timeout": int(os.environ["DMLC_TIMEOUT"]),
        "dmlc_retry": 1,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collective.init(**terms)
    except XGBoostError as error:
        if NOBODY_THERE in str(error):
            return False
        number, seconds = os.environ["NIMBUS_WORLD_SIZE"], os.environ["DMLC_TIMEOUT"]
        sys.exit(
            "%s\nnimbus: %s workers were not all there within %s s" % (said(error), number, seconds)
        )
    return True


def finish() -> None:
    """Tell the tracker that this worker is done."""
    from xgboost import collective
    from xgboost.core import XGBoostError

    sys.stdout.flush()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            collective.finalize()
    except XGBoostError as error:
        sys.exit("%s\nnimbus: the tracker does not answer" % said(error))


def explain(error: "BaseException | None") -> None:
    """Say, as the last word on a script's error, that it came from another worker."""
    if type(error).__name__ != "XGBoostError" or IN_COLLECTIVE not in str(error):
        return
    if "timeout" in said(error):
        told = "did not answer for %s s" % os.environ["DMLC_TIMEOUT"]
    else:
        told = "has left, or failed"
    sys.stderr.write("%s\nnimbus: another worker %s\n" % (said(error), told))


def said(error: "BaseException | None") -> str:
    """Return what XGBoost says before it shows its own stack."""
    return str(error).partition("Stack trace")[0].strip()
