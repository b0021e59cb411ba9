#!/usr/bin/env python3
"""A server with TLS before one without, for the tests: it may ask for a certificate or a header Authorization, or be broken."""

import argparse
import http.server
import socket
import ssl
import struct
import urllib.error
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    """Passes a request on."""

    def do(self):
        """Answers."""
        options = self.server.options
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("Authorization")
        if options.authorization and given != options.authorization:
            # As some do: what was given is in the answer.
            self.answer(401, ('{"error_code": 401, "message": "not allowed: %s"}' % given).encode())
        elif options.flood:
            self.answer(200, b"[" + b" " * (8 << 20) + b"]")
        elif options.redirect:
            self.answer(307, b"", Location=options.redirect + self.path)
        else:
            kept = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "accept")}
            request = urllib.request.Request(options.to + self.path, body or None, kept, method=self.command)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                    self.answer(answer.status, answer.read())
            except urllib.error.HTTPError as refusal:
                self.answer(refusal.code, refusal.read())

    do_GET = do_POST = do_PUT = do

    def answer(self, status, body, **headers):
        """Sends an answer."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Does the handshake in the connection's own thread."""

    def finish_request(self, request, client_address):
        request.settimeout(30)
        with self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as secure:
            try:
                secure.do_handshake()
            except ssl.SSLError:
                # What the client has sent meanwhile, if nobody reads it, resets the connection: the reason could be lost.
                secure.shutdown(socket.SHUT_WR)
                while secure.recv(65536):
                    pass
                raise
            if self.options.break_off > 0:
                self.options.break_off -= 1
                # A reset, at once.
                secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                super().finish_request(secure, client_address)

    def handle_error(self, request, client_address):
        """A client that goes away is what the tests are about."""


def main():
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--to", required=True, help="address of the server behind")
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--client-ca", help="who signs the certificates that clients must have")
    parser.add_argument("--authorization", help="the header that clients must send")
    parser.add_argument("--flood", action="store_true", help="answer without end, nearly")
    parser.add_argument("--break-off", type=int, default=0, help="how many connections to reset after the handshake")
    parser.add_argument("--redirect", help="answer that it is somewhere else")
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.options, server.tls = options, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(options.cert, options.key)
    if options.client_ca:
        server.tls.verify_mode = ssl.CERT_REQUIRED
        server.tls.load_verify_locations(options.client_ca)
    server.serve_forever()


if __name__ == "__main__":
    main()
