"""Fit the digits by softmax regression: a parameter server and its workers, or one process.

Workers find the server by its name, and each other by the addresses that it tells. The server
goes on for STEPS steps, and until the file UNTIL is there. What is written to the output is
written below SHARED, too; a second process of the same replica would fail there.
"""

import contextlib
import json
import os
import socket
import struct
import time
from itertools import count
from pathlib import Path

import numpy as np

from nimbus_hub.distributed import rank, role, world_size

STEPS = int(os.environ.get("STEPS", "60"))
PORT = 20000
digits = np.load("digits.npz")
images, labels = digits["images"], digits["labels"]
kept = None
if "SHARED" in os.environ:
    own = f"{os.environ['NIMBUS_RUN_ID']}.{role()}-{os.environ['NIMBUS_ROLE_RANK']}"
    kept = os.open(Path(os.environ["SHARED"], own), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
begun = count(1)


def say(text):
    """Write to standard output and error in turn."""
    data = text.encode()
    os.write(next(begun) % 2 + 1, data)
    if kept is not None:
        os.write(kept, data)


def gradient(weights, part):
    scores = images[part] @ weights
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(chances)), labels[part]] -= 1
    return images[part].T @ chances / len(images)


def send(connection, value):
    data = json.dumps(value.tolist() if isinstance(value, np.ndarray) else value).encode()
    connection.sendall(struct.pack("!I", len(data)) + data)


def receive(connection):
    with connection.makefile("rb") as file:
        (size,) = struct.unpack("!I", file.read(4))
        return json.loads(file.read(size))


def reach(name):
    """Return a connection, as soon as the other listens and its name is known."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((name, PORT), 5)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def serve():
    """Sum the gradients of all workers in each step."""
    weights = np.zeros((64, 10))
    with socket.create_server(("", PORT)) as server:
        callers = dict(hello(server) for _ in range(world_size()))
    workers = [callers[each][0] for each in range(world_size())]
    addresses = [callers[each][1] for each in range(world_size())]
    say(f"workers at {' '.join(addresses)}\n")
    for step in count():
        is_last = step >= STEPS and (
            "UNTIL" not in os.environ or Path(os.environ["UNTIL"]).exists()
        )
        for worker in workers:
            send(worker, [is_last, addresses, weights.tolist()])
        if is_last:
            return
        if step < STEPS:
            weights = weights - sum(np.array(receive(worker)) for worker in workers)
        else:
            for worker in workers:
                receive(worker)
        say(f"step {step} größer\n")
        time.sleep(float(os.environ.get("SLOW", "0")))


def hello(server):
    connection, (address, _) = server.accept()
    connection.settimeout(None)
    number, told = receive(connection)
    assert address == told, f"{number} comes from {address} and says {told}"
    return number, (connection, address)


def work():
    """Compute the gradients of a part of the digits; return the weights of the end."""
    server = reach(f"nimbus-{os.environ['NIMBUS_JOB_ID']}.{os.environ['NIMBUS_ATTEMPT']}.ps-0")
    server.settimeout(None)
    say(f"{os.environ['NIMBUS_ADDRESS']} reaches {server.getpeername()[0]}\n")
    send(server, [rank(), os.environ["NIMBUS_ADDRESS"]])
    part = slice(rank(), None, world_size())
    for step in count():
        is_last, addresses, weights = receive(server)
        if is_last:
            return addresses, np.array(weights)
        say(f"step {step} ...")
        send(server, gradient(np.array(weights), part))
        say(f" ✓ {step}\n")


def agree(addresses, weights):
    """Have the workers compare what they came to, directly."""
    if rank() == 0:
        with socket.create_server((addresses[0], PORT)) as server:
            for _ in addresses[1:]:
                connection, (address, _) = server.accept()
                connection.settimeout(None)
                assert receive(connection) == weights.tolist()
                say(f"{addresses[0]} agrees with {address}\n")
    else:
        with contextlib.closing(reach(addresses[0])) as first:
            send(first, weights)


if role() == "ps":
    serve()
else:
    if "NIMBUS_JOB_ID" in os.environ:
        addresses, weights = work()
        agree(addresses, weights)
    else:
        weights = np.zeros((64, 10))
        for _ in range(STEPS):
            weights = weights - gradient(weights, slice(None))
    accuracy = ((images @ weights).argmax(axis=1) == labels).mean()
    say(f"accuracy={accuracy:.6f} weights={np.abs(weights).sum():.9f}")
