"""What chat completions become on `/v1/responses`, as `tests/golden/responses` has it: the official client takes all of it."""

import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

GOLDEN = Path(__file__).resolve().parents[2] / "golden/responses"
# The files leave out what repeats the request.
LEFT_OUT = '"echo":0'
REPEATED = '"parallel_tool_calls":true,"tool_choice":"auto","tools":[]'
# Codes of errors that OpenAI sends beside those that its client has a type for.
OTHER_CODES = {"error_of_a_word"}


def golden(folder, ending):
    files = sorted((GOLDEN / folder).glob("*" + ending))
    return [(file.name.removesuffix(ending), file.read_text().replace(LEFT_OUT, REPEATED)) for file in files]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(self.server.stream.encode())


class Golden(unittest.TestCase):
    def test_each_response_has_the_types_of_the_client(self):
        taken = 0
        for name, text in golden("response", ".out"):
            if text.startswith("{"):
                with self.subTest(name):
                    Response.model_validate_json(text)
                    taken += 1
        self.assertGreater(taken, 30)

    def test_each_event_has_the_types_of_the_client(self):
        event, taken = TypeAdapter(ResponseStreamEvent), 0
        for name, text in golden("stream", ".out.sse"):
            for line in text.splitlines():
                if line.startswith("data: ") and not ("response.failed" in line and name in OTHER_CODES):
                    with self.subTest(name, line=line):
                        event.validate_json(line.removeprefix("data: "))
                        taken += 1
        self.assertGreater(taken, 500)

    def test_each_stream_is_taken_to_its_end(self):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:%d/v1" % server.server_address[1], max_retries=0)
        self.addCleanup(client.close)
        for name, text in golden("stream", ".out.sse"):
            if "event: " not in text:
                continue
            with self.subTest(name):
                server.stream = text
                with client.responses.stream(model="p/m", input="Hi") as stream:
                    kinds = [event.type for event in stream]
                self.assertEqual(len(kinds), text.count("\ndata: "))
                if kinds[-1] == "response.completed":
                    self.assertEqual(stream.get_final_response().status, "completed")


if __name__ == "__main__":
    unittest.main()
