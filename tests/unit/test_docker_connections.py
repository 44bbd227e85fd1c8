"""What is said of an engine that does not answer."""

from __future__ import annotations

from itertools import pairwise

import requests
import urllib3

from nimbus_hub.executors.docker.connections import why


def caused(*errors: Exception) -> Exception:
    """Return the first error, each raised from the next."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_the_systems_word_is_found_below_what_libraries_wrap_around_it() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    pool = urllib3.exceptions.HTTPError("Max retries exceeded with url: /info")
    wrapped = requests.ConnectionError("HTTPSConnectionPool(host='10.0.0.1', port=2376)")
    assert why(caused(wrapped, pool, refused)) == "Connection refused"
    assert why(caused(wrapped, TimeoutError("timed out"))) == "timed out"


def test_an_answer_that_is_cut_off_is_a_connection_that_ended() -> None:
    broken = urllib3.exceptions.ProtocolError("Connection broken: InvalidChunkLength")
    number = ValueError("invalid literal for int() with base 16: b''")
    assert why(caused(requests.exceptions.ChunkedEncodingError(), broken, number)) == (
        "its connection ended"
    )


def test_what_no_system_said_is_told_as_it_is() -> None:
    assert why(requests.RequestException("no such scheme")) == "no such scheme"
