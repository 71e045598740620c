"""deploy/nginx.conf with Debian's nginx."""

import unittest

from in_front import HOST, InFront, Server
from tools import DEPLOY, run, replaced

WHOLE = """
user root; daemon off; pid %(folder)s/nginx.pid; error_log stderr; worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi; scgi_temp_path %(folder)s/scgi;
    include %(folder)s/snippet.conf;
}
"""


class Nginx(InFront, unittest.TestCase):
    @classmethod
    def serve(cls, folder, certificates, address, port, upstream):
        (folder / "snippet.conf").write_text(replaced(DEPLOY / "nginx.conf", {
            "server 127.0.0.1:8080;": "server %s;" % upstream,
            "listen 443 ssl;": "listen %s:%d ssl;" % (address, port),
            "/etc/ssl/certs/%s.pem" % HOST: str(certificates.chain),
            "/etc/ssl/private/%s.key" % HOST: str(certificates.key),
        }))
        config = folder / "nginx.conf"
        config.write_text(WHOLE % {"folder": folder})
        run("nginx", "-t", "-c", config, "-p", folder)
        return Server(folder / "nginx.log", "nginx", "-c", config, "-p", folder)
