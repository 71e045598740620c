"""What the operator reads about calls of the real clients."""

import tempfile
from pathlib import Path

import httpx2  # what the SDK is built on

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, text_of, wait_for


def setUpModule():
    global alpha, proxy, log
    folder = for_module(tempfile.TemporaryDirectory())
    log = Path(folder) / "ai_proxy.log"
    alpha = for_module(Upstream("alpha"))
    proxy = for_module(ConfiguredProxy([alpha.entry], log_file=str(log), stream_heartbeat=0.1))
    # The proxy serves before the thread that writes its log has written the lines of the start.
    wait_for(lambda: log.exists() and any("开始监听" in line for line in lines()), "the last line of the start")


class Log(Case):
    def setUp(self):
        self.mark = len(lines())

    def lines_of_the_call(self):
        """What was logged since the test began, up to the line that ends the call."""
        return wait_for(lambda: "耗时:" in lines()[-1] and lines()[self.mark:], "the line of the call")

    def create(self, model, **options):
        return self.client(proxy).chat.completions.create(model=model, messages=ask(), **options)

    def answer(self, model):
        """Reads a streamed answer as far as it goes; the result is the id that the client was given."""
        with self.client(proxy).chat.completions.with_streaming_response.create(
                model=model, messages=ask("one two three"), stream=True) as raw:
            if model == "alpha/late-logged":
                alpha.open_gate("logged")  # the answer, id and all, has begun with a heartbeat
            try:
                list(raw.iter_lines())
            except httpx2.RemoteProtocolError:
                pass
            return raw.headers["x-request-id"]

    def ends_with_the_duration(self, line):
        seconds, unit = line.split()[-2:]
        self.assertLess(float(seconds), 10)
        self.assertEqual(unit, "s")

    def test_whole(self):
        self.create("alpha/ok")
        line, = self.lines_of_the_call()
        self.assertEqual(level(line), "INFO")
        self.ends_with_the_duration(line)

    def test_streamed(self):
        list(self.create("alpha/ok", stream=True))
        line, = self.lines_of_the_call()
        self.assertEqual(level(line), "INFO")
        self.ends_with_the_duration(line)

    def test_leaving_after_done_is_no_failure(self):
        # The Python client closes its connection on `[DONE]`, and does not wait for the closing chunk.
        self.addCleanup(alpha.open_gate, "log")
        self.assertEqual(text_of(self.create("alpha/lingers-log", stream=True)), "alpha: hello there")
        self.assertEqual([level(line) for line in self.lines_of_the_call()], ["INFO"])

    def test_every_line_of_a_call_carries_the_id_that_the_client_has(self):
        for model in ("break-mid-stream", "late-logged"):
            with self.subTest(model):
                self.setUp()
                request_id = self.answer("alpha/" + model)
                self.assertEqual([line for line in self.lines_of_the_call() if request_id not in line], [])


def lines():
    return log.read_text().splitlines()


def level(line):
    return line.split()[2]
