"""Runs a script within a collective of XGBoost, or the tracker that makes one.

Python 3.6 and later, standard library and xgboost only.
"""

import os
import sys
import traceback
import warnings

import xgboost
from xgboost import collective

from nimbus_hub.replica.runners import script

__all__ = ["main"]

NOBODY_THERE = "Failed to connect to the tracker"


def main(arguments: "list[str]") -> None:
    """Be what this replica's role says."""
    if os.environ["NIMBUS_ROLE"] == "tracker":
        track()
    else:
        train(arguments)


def track() -> None:
    """Bring the workers together, and end when all have left."""
    from xgboost.tracker import RabitTracker

    address, port = os.environ["DMLC_TRACKER_URI"], int(os.environ["DMLC_TRACKER_PORT"])
    workers = int(os.environ["NIMBUS_WORLD_SIZE"])
    # Bounds how long they may take to come, not how long they may train.
    patience = int(float(os.environ.get("NIMBUS_WAIT_SECONDS", script.USUAL_SECONDS)))
    tracker = RabitTracker(workers, address, port, sortby="task", timeout=patience)
    tracker.start()
    print("tracker of %d workers at %s:%d" % (workers, address, port), flush=True)
    tracker.wait_for()


def train(arguments: "list[str]") -> None:
    """Join the others, run the script, and leave when it came to its end."""
    script.wait_for_services(join)
    try:
        script.run(arguments)
    except SystemExit as end:
        if end.code not in (None, 0):
            leave_at_once(end)
        finish()
        raise
    finish()


def join(address: str, port: int) -> bool:
    """Join the collective; tell whether its tracker was there."""
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
    except xgboost.core.XGBoostError as error:
        if NOBODY_THERE not in str(error):
            raise
        return False
    return True


def finish() -> None:
    """Leave the collective; it waits for the others."""
    sys.stdout.flush()
    collective.finalize()


def leave_at_once(end: SystemExit) -> None:
    """End without a word to the others, who then fail within a second.

    To leave in order would wait for workers that wait for this one.
    """
    if not isinstance(end.code, int):
        sys.stderr.write("%s\n" % (end.code,))
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - whatever the user made of them
        traceback.print_exc()
    os._exit(end.code & 0xFF if isinstance(end.code, int) else 1)
