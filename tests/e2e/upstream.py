"""A scripted provider. The model that a request names is what it does:

    status-NNN          that error status, with a JSON error body
    text-NNN            that error status, with a body that is not JSON
    flaky-NNN-NAME      that error status the first time NAME is used, a good answer after
    gated-NAME          streamed: one event, then the rest once the gate NAME is opened
                        whole: the answer once the gate is opened
    late-NAME           as gated, but streamed not even the head is sent before the gate opens
    fails-NAME          status 500 once the gate is opened
    silent              no byte of an answer, until the other side goes away
    stalled             streamed: three events, then silence until the other side goes away
    break-before-head   the connection is closed instead of an answer
    break-mid-stream    streamed: three events, then closed short of the closing chunk
                        whole: closed short of the Content-Length
    reset-mid-stream    as break-mid-stream, with a TCP reset
    no-done             streamed, delimited by the close: three events, no `[DONE]`
    close-done          streamed, delimited by the close, complete
    error-event         streamed: three events, then an error event from the provider itself
    paced               streamed with a short pause between events
    slow                the answer after a tenth of a second
    huge                whole: more bytes than the proxy is configured to take
    close-after         a good answer, after which the connection is closed without a word
    lingers-NAME        streamed: all events, `[DONE]` too, but the closing chunk only once the gate is opened
    tool-calls          a tool call instead of text
    anything else       a good answer

`--name NAME` goes into every answer. The first line on stdout is the port. It ends when its stdin does, so that it
cannot outlive the test that started it.

For the tests: `GET /_seen` lists the requests to /v1 so far, `POST /_forget` empties that list,
`POST /_open/NAME` opens a gate.
"""

import argparse
import base64
import json
import select
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import shapes

LONGEST_WAIT = 30.0  # seconds at a gate or in silence: a test that forgot it must not hang the run
EVENTS_BEFORE_TROUBLE = 3


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.lock = threading.Lock()
        self.seen = []
        self.gates = {}
        self.flaked = set()

    def gate(self, name):
        with self.lock:
            return self.gates.setdefault(name, threading.Event())

    def handle_error(self, request, client_address):
        # A proxy that hangs up is part of many scripts; anything else is a bug in this file.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/_seen":
            with self.server.lock:
                self.send_json(200, self.server.seen)
        elif self.path.split("?")[0] == "/v1/models":
            self.record(b"")
            self.send_json(200, shapes.models(self.server.name))
        else:
            self.record(b"")
            self.stored()

    def do_DELETE(self):
        self.record(b"")
        self.stored()

    def stored(self):
        """What is asked about the one response that this provider has; every other is unknown to it."""
        status, answer = shapes.stored_response(self.server.name, self.command, self.path.split("?")[0])
        self.send_json(status, answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_forget":
            with self.server.lock:
                self.server.seen.clear()
            self.send_json(200, {})
        elif self.path.startswith("/_open/"):
            self.server.gate(self.path.removeprefix("/_open/")).set()
            self.send_json(200, {})
        else:
            self.entry = self.record(body)
            try:
                self.answer_call(body)
            except ConnectionError:
                # It went away while an event was on its way to it.
                self.entry["gone"] = True
                raise

    def answer_call(self, body):
        if self.path.startswith("/v1/responses/"):
            self.stored()
        elif self.headers.get_content_type() == "multipart/form-data":
            self.answer(shapes.form(self.headers["Content-Type"], body))
        else:
            self.answer(json.loads(body))

    def record(self, body):
        with self.server.lock:
            entry = {"method": self.command, "path": self.path, "headers": self.headers.items(),
                     "body": base64.b64encode(body).decode(), "gone": False}
            self.server.seen.append(entry)
            self.number = len(self.server.seen)
        return entry

    # --- the script ---

    def answer(self, asked):
        path, model = self.path.split("?")[0], asked["model"]
        kind, _, argument = model.partition("-")
        if kind in ("status", "text"):
            self.fail(int(argument), kind == "text")
        elif kind == "flaky" and self.first_time(argument):
            self.fail(int(argument.split("-")[0]))
        elif kind == "fails":
            self.pass_gate(model)
            self.fail(500)
        elif model == "silent":
            self.wait_until_gone()
        elif model == "break-before-head":
            self.hang_up()
        elif model == "slow":
            time.sleep(0.1)
            self.whole(kind, model, shapes.dumps(shapes.WHOLE[path](self.server.name, asked)))
        elif path == "/v1/audio/speech":
            self.send_whole(200, "audio/mpeg", shapes.AUDIO)
        elif asked.get("stream"):
            self.stream(kind, model, shapes.STREAMED[path](self.server.name, asked), path)
        else:
            self.whole(kind, model, shapes.dumps(shapes.WHOLE[path](self.server.name, asked)))
        if model == "close-after":
            self.hang_up()

    def first_time(self, name):
        with self.server.lock:
            known = name in self.server.flaked
            self.server.flaked.add(name)
        return not known

    def fail(self, status, as_text=False):
        if as_text:
            self.send_whole(status, "text/html", b"<h1>scripted failure</h1>")
        elif self.path.startswith("/v1/messages"):
            self.send_json(status, shapes.anthropic_error("scripted %d" % status))
        else:
            self.send_json(status, shapes.error("scripted %d" % status, "scripted_%d" % status))

    def whole(self, kind, model, body):
        if kind in ("gated", "late"):
            self.pass_gate(model)
        if model in ("break-mid-stream", "reset-mid-stream"):
            self.start_whole(200, "application/json", len(body))
            self.wfile.write(body[:20])
            self.hang_up(reset=model.startswith("reset"))
        elif model == "huge":
            self.send_whole(200, "application/json", body + b" " * (2 << 20))
        else:
            self.send_whole(200, "application/json", body)

    def stream(self, kind, model, events, path):
        if kind == "late":
            self.pass_gate(model)
        chunked = model not in ("no-done", "close-done")
        self.start_stream(chunked)
        for at, (name, data) in enumerate(events):
            if at == 1 and kind == "gated":
                self.pass_gate(model)
            if at == EVENTS_BEFORE_TROUBLE and self.ends_here(model):
                return
            if model == "paced":
                time.sleep(0.02)
            self.send_event(name, data, chunked)
        # Neither of these has such an event: their streams end with `response.completed` and `message_stop`.
        if path not in ("/v1/responses", "/v1/messages"):
            self.send_piece(b"data: [DONE]\n\n", chunked)
        if kind == "lingers":
            self.pass_gate(model)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.hang_up()

    def ends_here(self, model):
        """Ends a stream in its middle where the script says so."""
        if model in ("break-mid-stream", "no-done"):
            self.hang_up()
        elif model == "reset-mid-stream":
            time.sleep(0.1)  # a reset may overtake bytes that the other side has not read yet
            self.hang_up(reset=True)
        elif model == "stalled":
            self.wait_until_gone()
        elif model == "error-event":
            if self.path.startswith("/v1/messages"):
                self.send_event("error", shapes.anthropic_error("the provider gave up"), True)
            else:
                self.send_event(None, shapes.error("the provider gave up"), True)
            self.wfile.write(b"0\r\n\r\n")
        else:
            return False
        return True

    def pass_gate(self, model):
        self.server.gate(model.partition("-")[2]).wait(LONGEST_WAIT)

    def wait_until_gone(self):
        readable, _, _ = select.select([self.connection], [], [], LONGEST_WAIT)
        try:
            self.entry["gone"] = bool(readable) and self.connection.recv(1) == b""
        except ConnectionResetError:
            self.entry["gone"] = True
        self.hang_up()

    def hang_up(self, reset=False):
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    # --- the wire ---

    def send_json(self, status, value):
        self.send_whole(status, "application/json", shapes.dumps(value))

    def send_whole(self, status, content_type, body):
        self.start_whole(status, content_type, len(body))
        self.wfile.write(body)

    def start_whole(self, status, content_type, length):
        self.start(status, content_type, [("Content-Length", str(length))])

    def start_stream(self, chunked):
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")
        self.start(200, "text/event-stream; charset=utf-8", [framing])

    def start(self, status, content_type, headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if hasattr(self, "number"):
            self.send_header("X-Request-Id", "%s-%d" % (self.server.name, self.number))
        # Neither may reach a client: one is the provider's session, the other is about this connection alone.
        self.send_header("Set-Cookie", "session=of-the-provider")
        self.send_header("Keep-Alive", "timeout=60")
        for header in headers:
            self.send_header(*header)
        self.end_headers()

    def send_event(self, name, data, chunked):
        event = b"data: " + shapes.dumps(data) + b"\n\n"
        self.send_piece(b"event: " + name.encode() + b"\n" + event if name else event, chunked)

    def send_piece(self, piece, chunked):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--name", default="upstream")
    server = Upstream(options.parse_args().name)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.buffer.read()


main()
