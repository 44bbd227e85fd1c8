"""Say hello on a port; ask all addresses that come on lines of a file, until it says to end."""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PORT = int(os.environ["PORT"])
asked_file = Path(os.environ["ASKED"])
server = socket.create_server(("", PORT))


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def answer():
    while True:
        with server.accept()[0] as connection:
            connection.sendall(b"hello")


def ask(address):
    try:
        with socket.create_connection((address, PORT), 3) as connection:
            return f"{address} {connection.recv(9).decode()}"
    except OSError as error:
        return f"{address} {type(error).__name__}"


threading.Thread(target=answer, daemon=True).start()
say("up")
answers = {}
while True:
    lines = asked_file.read_text().split() if asked_file.exists() else []
    new = [each for each in lines if each not in answers and each != "end"]
    with ThreadPoolExecutor(32) as pool:
        for address, said in zip(new, pool.map(ask, new), strict=True):
            answers[address] = said
            say(said)
    if "end" in lines:
        break
    time.sleep(0.1)
