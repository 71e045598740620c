"""deploy/haproxy.cfg with Debian's HAProxy: in front of one instance, and of three that die and are replaced."""

import signal
import tempfile
import unittest
from pathlib import Path

from harness import ConfiguredProxy, Upstream
from in_front import HOST, Certificates, Connection, InFront, Server, own_address
from load import CLIENTS, Load
from tools import DEPLOY, replaced, run

INSTANCES = ("a", "b", "c")


def haproxy(folder, certificates, address, port, servers):
    config = folder / "haproxy.cfg"
    config.write_text(replaced(DEPLOY / "haproxy.cfg", {
        "maxconn 10000": "maxconn 500",
        "stats socket /run/haproxy/admin.sock": "stats socket %s/admin.sock" % folder,
        "bind :443": "bind %s:%d" % (address, port),
        "/etc/haproxy/%s.pem" % HOST: str(certificates.both),
        **{"192.0.2.%d:8080" % number: server for number, server in enumerate(servers, 1)},
    }))
    run("haproxy", "-c", "-f", config)
    return Server(folder / "haproxy.log", "haproxy", "-db", "-f", config)


class Haproxy(InFront, unittest.TestCase):
    @classmethod
    def serve(cls, folder, certificates, address, port, upstream):
        return haproxy(folder, certificates, address, port, [upstream] * len(INSTANCES))


class ThreeMachines(unittest.TestCase):
    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        certificates = Certificates(folder)
        self.upstream = self.enterContext(Upstream("alpha"))
        self.addresses = {name: own_address() for name in INSTANCES}
        self.instances = {name: self.start(name) for name in INSTANCES}
        self.addCleanup(lambda: [instance.stop() for instance in self.instances.values()])
        address, port = own_address(), 8443
        self.connect = lambda: Connection(certificates, address, port)
        servers = [address + ":8080" for address in self.addresses.values()]
        self.enterContext(haproxy(folder, certificates, address, port, servers)).wait_until_up(self.connect)

    def start(self, name):
        return ConfiguredProxy([self.upstream.entry], host=self.addresses[name], port=8080)

    def test_a_killed_instance_costs_only_what_was_in_mid_answer(self):
        with Load(self.connect) as load:
            load.goes_on()
            self.instances["b"].stop()  # SIGKILL
            load.goes_on(200)
            self.instances["b"] = self.start("b")
            load.goes_on(200)
        self.assertEqual(load.lost, [])
        # Streams of one instance of three, and none of the others'.
        self.assertLessEqual(len(load.cut), CLIENTS)

    def test_a_rolling_restart_loses_nothing(self):
        with Load(self.connect) as load:
            for name in INSTANCES:
                load.goes_on()
                self.instances[name].signal(signal.SIGTERM)
                self.assertEqual(self.instances[name].exit_code(), 0)
                self.instances[name].stop()
                load.goes_on()
                self.instances[name] = self.start(name)
            load.goes_on()
        self.assertEqual((load.lost, load.cut), ([], []))
