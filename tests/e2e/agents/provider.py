"""A scripted provider for agents: it asks for a tool first, and says something once it has the result.

The folder is the first argument. Its models are `TASK` or `TASK+TROUBLE`; what follows another `+` makes it another model. Tasks:

    write       writes FOLDER/hello.txt
    show        reads FOLDER/picture.png
    sum-up      reads FOLDER/report.pdf, and refuses a request that holds a document
    delegate    asks a subagent that is to use the small model
    search      looks for a tool whose loading is deferred
    list        no tool: says what FOLDER/hello.txt is to hold, as aider reads it
    talk        no tool

Troubles, which befall the second request (the one with the result):

    busy        429 with `Retry-After: 1`, once
    broken      a stream that breaks after its first words, once
    silent      a second of silence ahead of the response

It speaks chat completions, and at `/native/v1` Anthropic's messages. The first line on stdout is its port; it ends when its
stdin does. `GET /_seen` gives the requests so far.
"""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAID = ["All is ", "done now."]
LISTING = ["hello.txt\n```\n", "hello\n```\n"]
WRITERS = {"write", "write_file", "create_file"}
READERS = {"read", "read_file"}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        seen = self.path == "/_seen"
        self.send(200, server.seen if seen else {"object": "list", "data": [{"id": "write", "object": "model"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append({"path": self.path, "body": asked})
        task, trouble = (asked["model"].split("+") + [""])[:2]
        native = self.path.startswith("/native")
        said = json.dumps(asked["messages"])
        is_second = '"tool_result"' in said or '"role": "tool"' in said or not asked.get("tools")
        if task == "sum-up" and '"type": "file"' in said:
            return self.send(400, {"error": {"message": "unknown variant `file`, expected `text`"}})
        if is_second and trouble in ("busy", "broken"):
            with server.lock:
                is_first_time = asked["model"] not in server.troubled
                server.troubled.add(asked["model"])
            if is_first_time and trouble == "busy":
                return self.send(429, {"error": {"message": "slow down", "type": "rate_limit_error"}}, ("Retry-After", "1"))
            trouble = trouble if is_first_time else ""
        if is_second and trouble == "silent":
            time.sleep(1)
        call = None if is_second else self.call(task, asked["tools"])
        said = LISTING if task == "list" else SAID
        events = (anthropic if native else chat)(asked["model"], call, said)
        if not asked.get("stream"):
            return self.send(200, whole(asked["model"], call, said))
        self.start(200, "text/event-stream", ("Transfer-Encoding", "chunked"))
        for at, (name, data) in enumerate(events):
            if at == 2 and is_second and trouble == "broken":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            head = "event: %s\n" % name if name else ""
            self.piece(("%sdata: %s\n\n" % (head, data if isinstance(data, str) else json.dumps(data))).encode())
        self.piece(b"")

    def call(self, task, tools):
        """The tool that does the task, and its input."""
        tools = [tool.get("function", tool) for tool in tools]
        if task == "talk":
            return None
        if task == "search":
            return "ToolSearch", {"query": "select:WebFetch"}
        if task == "delegate":
            asked = {"description": "say something", "prompt": "Say something.", "subagent_type": "general-purpose"}
            return "Agent", asked | {"model": "haiku"}
        names = WRITERS if task == "write" else READERS
        tool = next((tool for tool in tools if tool["name"].lower() in names), None)
        if tool is None:
            return None
        properties = (tool.get("parameters") or tool["input_schema"])["properties"]
        path = next(name for name in properties if "path" in name.lower())
        file = {"write": "hello.txt", "show": "picture.png", "sum-up": "report.pdf"}[task]
        given = {path: "%s/%s" % (server.folder, file)}
        return tool["name"], given | ({"content": "hello\n"} if task == "write" else {})

    def start(self, status, kind, *headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for header in headers:
            self.send_header(*header)
        self.end_headers()

    def send(self, status, value, *headers):
        data = json.dumps(value).encode()
        self.start(status, "application/json", ("Content-Length", str(len(data))), *headers)
        self.wfile.write(data)

    def piece(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def function(call):
    return {"index": 0, "id": "call_1", "type": "function",
            "function": {"name": call[0], "arguments": json.dumps(call[1])}}


USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def whole(model, call, said):
    message = {"role": "assistant", "content": None if call else "".join(said)}
    message |= {"tool_calls": [function(call)]} if call else {}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice],
            "usage": USAGE}


def chat(model, call, said):
    def chunk(delta, reason=None, **more):
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}] if delta is not None else []
        return None, {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
                      "choices": choices, **more}
    yield chunk({"role": "assistant", "content": ""})
    if call:
        yield chunk({"tool_calls": [function(call)]})
    else:
        for text in said:
            yield chunk({"content": text})
    yield chunk({}, "tool_calls" if call else "stop")
    yield chunk(None, usage=USAGE)
    yield None, "[DONE]"


def anthropic(model, call, said):
    def event(kind, **more):
        return kind, {"type": kind, **more}
    yield event("message_start", message={
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}})
    if call:
        yield event("content_block_start", index=0,
                    content_block={"type": "tool_use", "id": "toolu_1", "name": call[0], "input": {}})
        yield event("content_block_delta", index=0,
                    delta={"type": "input_json_delta", "partial_json": json.dumps(call[1])})
    else:
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for text in said:
            yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None},
                usage={"output_tokens": 7})
    yield event("message_stop")


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
server.daemon_threads = True
server.folder = sys.argv[1]
server.seen, server.troubled, server.lock = [], set(), threading.Lock()
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.buffer.read()
