"""XGBoost by hand: a tracker in this process, and the script within a collective in each worker.

``python xgboost_workers.py N SCRIPT``
"""

import os
import runpy
import subprocess
import sys


def main(number: int, script: str) -> int:
    """Start the tracker and the workers; return 0 if all end well."""
    from xgboost.tracker import RabitTracker

    tracker = RabitTracker(number, "127.0.0.1", sortby="task")
    tracker.start()
    terms = tracker.worker_args()
    where = {
        "TRACKER_URI": str(terms["dmlc_tracker_uri"]),
        "TRACKER_PORT": str(terms["dmlc_tracker_port"]),
        "WORLD_SIZE": str(number),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", script],
            env={**os.environ, **where, "RANK": str(rank)},
        )
        for rank in range(number)
    ]
    return max(worker.wait() for worker in workers)


def work(script: str) -> None:
    """Join the collective and run the script."""
    from xgboost.collective import CommunicatorContext

    with CommunicatorContext(
        dmlc_tracker_uri=os.environ["TRACKER_URI"],
        dmlc_tracker_port=int(os.environ["TRACKER_PORT"]),
        dmlc_task_id=os.environ["RANK"],
    ):
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(sys.argv[2])
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2]))
