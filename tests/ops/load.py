"""Clients that ask without a pause, and remember what they did not get."""

import http.client
import itertools
import threading

from harness import wait_for

CLIENTS = 12
PATIENCE = 60.0  # seconds: the load itself is what makes the machine slow


class Load:
    """Whole answers and streams, on kept and on new connections, from `alpha`; `connect` gives a connection."""

    def __init__(self, connect):
        self.connect = connect
        self.ended = threading.Event()
        self.served = itertools.count(1)
        self.count = 0
        self.lost = []       # no byte of the answer had come, or it was an error
        self.cut = []        # in the middle of an answer
        self.threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def ask(self, number):
        connection = self.connect()
        stream = number % 2 == 0
        while not self.ended.is_set():
            if number % 3 == 0:
                connection.close()
                connection = self.connect()
            begun = False
            try:
                answer = connection.chat("alpha/paced" if stream else "alpha/slow", stream=stream)
                begun = answer.status == 200
                body = answer.read()
                if not begun or (stream and not body.endswith(b"data: [DONE]\n\n")):
                    self.lost.append((answer.status, body))
                self.count = next(self.served)
            except (OSError, http.client.HTTPException) as error:
                (self.cut if begun else self.lost).append(repr(error))
                connection.close()
                connection = self.connect()
        connection.close()

    def goes_on(self, requests=60):
        """Waits until so many more have been answered."""
        until = self.count + requests
        wait_for(lambda: self.count >= until, "the load to go on", PATIENCE)
