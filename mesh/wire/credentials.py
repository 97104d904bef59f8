"""TLS for servers and channels. grpcio's own credentials are opaque, so these are values of ours, made of `ssl`."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ChannelCredentials", "ServerCredentials", "auth_context", "identities", "identity_key"]

ALPN = "h2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCredentials:
    """What a server shows, and whom it lets in. All PEM."""

    private_key: bytes
    certificate_chain: bytes
    root_certificates: bytes | None = None
    """Who may sign clients' certificates."""
    require_client_certificate: bool = False
    """Mutual TLS: refuse who shows no certificate signed by `root_certificates`."""

    def context(self) -> ssl.SSLContext:
        """The `ssl` context of a server. Raises ssl.SSLError where the key or a certificate is none."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _prepare(made)
        _load_pair(made, self.certificate_chain, self.private_key)
        if self.root_certificates is not None:
            made.load_verify_locations(cadata=self.root_certificates.decode())
            made.verify_mode = ssl.CERT_REQUIRED if self.require_client_certificate else ssl.CERT_OPTIONAL
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCredentials:
    """Whom a channel trusts, and what it shows. All PEM."""

    root_certificates: bytes | None = None
    """Who may sign the server's certificate; the system's list where it is left out."""
    private_key: bytes | None = None
    certificate_chain: bytes | None = None

    def context(self) -> ssl.SSLContext:
        """The `ssl` context of a client. Raises ssl.SSLError where the key or a certificate is none."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _prepare(made)
        if self.root_certificates is not None:
            made.load_verify_locations(cadata=self.root_certificates.decode())
        else:
            made.load_default_certs()
        if self.private_key is not None and self.certificate_chain is not None:
            _load_pair(made, self.certificate_chain, self.private_key)
        return made


def _prepare(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 9113, 9.2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])


def _load_pair(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    # `ssl` reads a key only from a file; the folder is readable by this user alone and gone when this returns.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pair.pem")
        path.touch(mode=0o600)
        path.write_bytes(key.rstrip() + b"\n" + chain)
        context.load_cert_chain(path)


def auth_context(transport: Any) -> dict[str, list[bytes]]:
    """What is known of the peer by its certificate, under grpcio's names; empty without TLS."""
    secured = transport.get_extra_info("ssl_object")
    if secured is None:
        return {}
    found: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
    shown: dict[str, Any] = secured.getpeercert() or {}
    for part in shown.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                found.setdefault("x509_common_name", []).append(value.encode())
    for _, value in shown.get("subjectAltName", ()):
        found.setdefault("x509_subject_alternative_name", []).append(value.encode())
    return found


def identity_key(known: Mapping[str, list[bytes]]) -> str | None:
    """Under which key of an `auth_context` the peer's names stand; None where it showed none."""
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        if key in known:
            return key
    return None


def identities(known: Mapping[str, list[bytes]]) -> list[bytes] | None:
    """The peer's names by its certificate; None where it showed none."""
    key = identity_key(known)
    return known[key] if key else None
