#!/usr/bin/env python3
"""An OIDC provider with TLS for the tests: gives tokens by client credentials. Its keys go to a file that brokers read."""

import argparse
import base64
import http.server
import json
import pathlib
import ssl
import time
import urllib.parse

from joserfc import jwk, jwt

KEY = jwk.RSAKey.generate_key(2048, {"kid": "test", "use": "sig", "alg": "RS256"})


class Handler(http.server.BaseHTTPRequestHandler):
    """The token endpoint."""

    def do_POST(self):
        """Answers a request for a token."""
        options = self.server.options
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        given = self.headers.get("Authorization", "")
        expected = "Basic " + base64.b64encode(f"{options.client}:{options.secret}".encode()).decode()
        if given != expected or form.get("grant_type") != ["client_credentials"]:
            # As some do: what was given is in the answer.
            return self.answer(401, {"error": "invalid_client", "error_description": f"not allowed: {given}"})
        now = int(time.time())
        claims = {"sub": options.client, "iss": "https://idp.test", "iat": now, "exp": now + options.life}
        claims["scope"] = (form.get("scope") or ["kafka"])[0]
        claims["aud"] = (form.get("audience") or ["nobody"])[0]
        token = jwt.encode({"alg": "RS256", "kid": "test"}, claims, KEY)
        return self.answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": options.life})

    def answer(self, status, body):
        """Sends an answer."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def main():
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--dir", required=True, type=pathlib.Path, help="with cert.pem and key.pem; keys.json is written")
    parser.add_argument("--client", default="rollcall-oidc")
    parser.add_argument("--secret", required=True)
    parser.add_argument("--life", type=int, default=3600, help="of a token, in seconds")
    options = parser.parse_args()
    keys = {"keys": [KEY.as_dict(private=False)]}
    (options.dir / "keys.json").write_text(json.dumps(keys))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.options, tls = options, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.dir / "cert.pem", options.dir / "key.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
