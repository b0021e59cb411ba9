#!/usr/bin/env python3
"""Make a certificate authority of its own and a certificate for an address that it signed; write ca.pem, cert.pem and key.pem."""

import argparse
import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def name(text):
    """A distinguished name of one part."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, issuer, issuer_key, extensions, days=1):
    """A certificate that is valid for so many days, from some time ago on."""
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=9)).not_valid_after(now + datetime.timedelta(days=days))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def main():
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", required=True, type=pathlib.Path)
    parser.add_argument("--address", default="127.0.0.1", help="whose certificate it is")
    parser.add_argument("--days", default=1, type=int, help="how long it is valid; below 0 it has expired")
    args = parser.parse_args()
    folder = args.dir
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    signing = [(x509.BasicConstraints(ca=True, path_length=0), True)]
    ca = certificate("Rollcall test CA", authority, "Rollcall test CA", authority, signing)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(args.address))])
    plain = [(x509.BasicConstraints(ca=False, path_length=None), True), (address, False)]
    cert = certificate(args.address, server, "Rollcall test CA", authority, plain, args.days)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "cert.pem").write_bytes(cert.public_bytes(pem))
    form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(server.private_bytes(pem, form, bare))


if __name__ == "__main__":
    main()
