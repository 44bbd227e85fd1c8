"""Tells Nimbus how far a training is: the helper for user code.

    from nimbus_hub.replica.progress import report

    for epoch in range(epochs):
        ...
        report((epoch + 1) / epochs, "loss %.3f" % loss)

Outside of a job it does nothing, and it never fails a training: a report that cannot be
delivered within two seconds is dropped. Python 3.6 and later, standard library only.
"""

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["report"]

TIMEOUT_SECONDS = 2.0


def report(fraction: float, message: str = "") -> bool:
    """Report how much is done, from 0 to 1, and a word on it; tell whether it arrived."""
    url = os.environ.get("NIMBUS_API_URL")
    job_id = os.environ.get("NIMBUS_JOB_ID")
    token = os.environ.get("NIMBUS_TOKEN")
    if not url or not job_id or not token:
        return False
    try:
        body = json.dumps({"fraction": min(1.0, max(0.0, float(fraction))), "message": message})
        request = urllib.request.Request(
            "%s/api/v1/jobs/%s/progress" % (url.rstrip("/"), urllib.parse.quote(job_id, safe="")),
            data=body.encode("utf-8"),
            headers={"Authorization": "token " + token, "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status < 300)
    except (OSError, ValueError, TypeError, OverflowError, http.client.HTTPException):
        # urllib's own errors are OSErrors.
        return False
