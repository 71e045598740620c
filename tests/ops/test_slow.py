"""slowhttptest in its three modes: the service stays available, to its own probes and to an ordinary client."""

import re
import statistics
import subprocess
import threading
import time

from harness import CLIENT_TOKEN, Case, ConfiguredProxy, Upstream, ask, for_module
from tools import PATIENCE

CONNECTIONS = 500
LENGTH = 8  # seconds
# An ordinary call may take so much longer than in the quiet: a factor, and what a busy machine adds.
FACTOR, NOISE = 5, 0.02


def setUpModule():
    global proxy
    alpha = for_module(Upstream("alpha"))
    proxy = for_module(ConfiguredProxy([alpha.entry], log_level="ERROR"))


def slowhttptest(*mode):
    command = ["slowhttptest", "-c", str(CONNECTIONS), "-r", "250", "-i", "1", "-l", str(LENGTH), "-p", "3", *mode]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class Slow(Case):
    def setUp(self):
        self.openai = self.client(proxy)
        self.quiet = self.median(lambda: len(self.times) == 50)

    def median(self, over):
        """The median time of an ordinary call, one after the other until it is over."""
        self.times = []
        while not over():
            begun = time.monotonic()
            self.openai.chat.completions.create(model="alpha/ok", messages=ask())
            self.times.append(time.monotonic() - begun)
        return statistics.median(self.times)

    def under(self, *mode):
        tool = slowhttptest(*mode)
        timer = threading.Timer(PATIENCE, tool.kill)
        timer.start()
        said = []
        reader = threading.Thread(target=lambda: said.append(tool.stdout.read()))
        reader.start()
        slow = self.median(lambda: not reader.is_alive())
        timer.cancel()
        tool.wait()
        tool.stdout.close()
        text = re.sub(r"\x1b\[[0-9;]*m", "", said[0].decode(errors="replace"))
        self.assertEqual(tool.returncode, 0, text)
        self.assertEqual(set(re.findall(r"service available:\s+(\w+)", text)), {"YES"}, text)
        connected = [int(count) for count in re.findall(r"connected:\s+(\d+)", text)]
        self.assertGreater(len(self.times), 20)
        self.assertLess(slow, self.quiet * FACTOR + NOISE, text)
        return connected

    def test_slow_heads(self):
        connected = self.under("-H", "-u", proxy.root + "/")
        self.assertGreater(max(connected), CONNECTIONS // 2, "they did get in")

    def test_slow_bodies(self):
        # The only way to give it a token: bodies without one are refused by their heads.
        token = "application/json\r\nAuthorization: Bearer " + CLIENT_TOKEN
        connected = self.under("-B", "-s", "8192", "-f", token, "-u", proxy.url + "/chat/completions")
        self.assertGreater(max(connected), CONNECTIONS // 2, "they did get in")

    def test_slow_reads(self):
        connected = self.under("-X", "-k", "10", "-w", "10", "-y", "20", "-n", "2", "-z", "5", "-u", proxy.root + "/")
        self.assertGreater(max(connected), CONNECTIONS // 2, "they did get in")
