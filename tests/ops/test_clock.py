"""The wall clock jumps, as after a resumed machine or a first answer of NTP: deadlines and timers do not."""

import glob
import os
import subprocess
import tempfile
import unittest.mock
import urllib.request

from harness import BINARY, DEADLINE, Case, ConfiguredProxy, Upstream, ask, for_module, text_of

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def setUpModule():
    global alpha
    alpha = for_module(Upstream("alpha"))


class Clock(Case):
    def setUp(self):
        if "ld-linux" not in subprocess.run(["ldd", BINARY], capture_output=True, text=True).stdout:
            self.skipTest("NOT RUN: a static binary does not load the library that moves its clock")
        self.stamp = self.enterContext(tempfile.NamedTemporaryFile("w"))
        self.jump("+0")
        fake = {"LD_PRELOAD": glob.glob(LIBRARY)[0], "FAKETIME_TIMESTAMP_FILE": self.stamp.name,
                # Linux never moves the monotonic clock.
                "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with unittest.mock.patch.dict(os.environ, fake):
            self.proxy = self.enterContext(ConfiguredProxy([alpha.entry], client_timeout=10, idle_timeout=10))

    def jump(self, offset):
        self.stamp.seek(0)
        self.stamp.truncate()
        self.stamp.write(offset)
        self.stamp.flush()

    def year(self):
        with urllib.request.urlopen(self.proxy.root + "/healthz", timeout=DEADLINE) as answer:
            return int(answer.headers["date"].split()[3])

    def test_requests_streams_and_waits_go_on(self):
        client = self.client(self.proxy)
        now = self.year()
        for offset, years in (("+10y", 10), ("-20y", -20), ("+1000y", 1000), ("+0", 0)):
            stream = client.chat.completions.create(model="alpha/ok", messages=ask(), stream=True)
            self.jump(offset)
            self.assertTrue(text_of(stream), offset)
            self.assertLessEqual(abs(self.year() - now - years), 1, "the clock did jump")
            self.assertTrue(client.chat.completions.create(model="alpha/ok", messages=ask()).choices)
        self.proxy.terminate()
        self.assertEqual(self.proxy.exit_code(), 0)
