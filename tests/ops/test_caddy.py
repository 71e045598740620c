"""deploy/Caddyfile with Debian's Caddy."""

import os
import unittest

from in_front import HOST, InFront, Server
from tools import DEPLOY, run, replaced


class Caddy(InFront, unittest.TestCase):
    @classmethod
    def serve(cls, folder, certificates, address, port, upstream):
        config = folder / "Caddyfile"
        # Its certificate is given here; its admin port and its store are those of the machine's own Caddy.
        config.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system %s\n}\n" % folder + replaced(
            DEPLOY / "Caddyfile", {
                HOST + " {": "https://%s:%d {\n\tbind %s\n\ttls %s %s" % (
                    HOST, port, address, certificates.chain, certificates.key),
                "reverse_proxy 127.0.0.1:8080 {": "reverse_proxy %s {" % upstream,
            }))
        os.environ.update(XDG_CONFIG_HOME=str(folder), XDG_DATA_HOME=str(folder))
        run("caddy", "validate", "--adapter", "caddyfile", "--config", config)
        return Server(folder / "caddy.log", "caddy", "run", "--adapter", "caddyfile", "--config", config)

    def check_end(self, answer):
        """Caddy 2.6 ends cleanly what broke off behind it: only the error event tells."""
        answer.read()
