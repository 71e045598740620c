"""A provider that speaks chat completions alone, and answers what a script says: its first answers call tools, its last is text."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Provider(ThreadingHTTPServer):
    """`script` makes the answer from the messages: a text, or the name and the arguments of a tool call. `troubles` befall the
    first requests, one each: `busy` is a 429, `broken` ends the stream after its first words, `silent` begins with silence."""

    daemon_threads = True

    def __init__(self, script, troubles):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.troubles = script, list(troubles)
        self.asked = []  # the bodies of the chat requests
        self.refused = []  # the paths that are not there
        self.url = "http://127.0.0.1:%d/v1" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(200, "application/json", json.dumps({"object": "list", "data": [
            {"id": model, "object": "model", "owned_by": "script"} for model in ("gpt-5.5", "open-model")]}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/chat/completions":
            self.server.refused.append(self.path)
            self.answer(404, "application/json", json.dumps({"error": {"message": "no such path", "code": 404}}))
            return
        asked = json.loads(body)
        self.server.asked.append(asked)
        events = [*chunks(self.server.script(asked["messages"]), len(self.server.asked)), "[DONE]"]
        stream = "".join("data: %s\n\n" % event for event in events)
        trouble = self.server.troubles.pop(0) if self.server.troubles else None
        if trouble == "busy":
            self.answer(429, "application/json", json.dumps({"error": {"message": "slow down", "code": "busy"}}),
                        ("Retry-After", "1"))
        elif trouble == "broken":
            # Fewer bytes than were promised.
            self.answer(200, "text/event-stream", "data: %s\n\n" % events[0], length=len(stream))
            self.close_connection = True
        else:
            time.sleep(1.0 if trouble == "silent" else 0.0)
            self.answer(200, "text/event-stream", stream)

    def answer(self, status, content_type, text, *headers, length=None):
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length or len(content)))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content)


def chunks(answer, number):
    """A streamed answer as real providers cut it: reasoning, then text or a call whose arguments come in pieces."""
    def chunk(delta, finish=None):
        return json.dumps({"id": "chatcmpl-%d" % number, "object": "chat.completion.chunk", "created": 1700000000,
                           "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    yield chunk({"role": "assistant", "reasoning_content": "Let me see."})
    if isinstance(answer, str):
        for piece in (answer[:4], answer[4:]):
            yield chunk({"content": piece})
        yield chunk({}, "stop")
    else:
        name, arguments = answer
        arguments = json.dumps(arguments)
        yield chunk({"tool_calls": [{"index": 0, "id": "call_%d" % number, "type": "function",
                                     "function": {"name": name, "arguments": ""}}]})
        for at in range(0, len(arguments), 7):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[at:at + 7]}}]})
        yield chunk({}, "tool_calls")
    yield json.dumps({"id": "chatcmpl-%d" % number, "object": "chat.completion.chunk", "choices": [], "usage": {
        "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
        "completion_tokens_details": {"reasoning_tokens": 5}}})
