"""HTTPS: the certificate that is given, or one of our own for the beginning.

A generated certificate is signed by nobody, so clients must be told to trust its file; it lies in the cache
folder, its key readable by its owner alone, and is renewed a month before it ends. A running service takes up
a file that changed (cert-manager, certbot) without a restart.
"""

import ipaddress
import logging
import os
import socket
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alchemy.errors import BadConfig
from alchemy.settings import Settings
from serving.options import ServingOptions

log = logging.getLogger(__name__)

PORT = 8443

_LASTS = timedelta(days=365)
_RENEWED = timedelta(days=30)  # before its end
_LOOK_S = 600.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a PEM chain and its key lie."""

    chain: Path
    key: Path

    @property
    def stamps(self) -> tuple[int, int]:
        """Differ when a file was replaced."""
        return self.chain.stat().st_mtime_ns, self.key.stat().st_mtime_ns


def certificate(options: ServingOptions, cache: Path) -> Certificate:
    """The given certificate, or a generated one that is good for a month at least. Raises BadConfig."""
    if options.tls_certificate and options.tls_key:
        return Certificate(options.tls_certificate, options.tls_key)
    found = Certificate(cache / "tls" / "certificate.pem", cache / "tls" / "key.pem")
    if not _is_good(found):
        _generate(found)
        log.warning("a self-signed certificate was made", extra={"file": str(found.chain)})
    return found


def port(settings: Settings, options: ServingOptions) -> int:
    """Where the service listens: as the settings say, else where HTTPS is expected when it is on."""
    chosen = "port" in settings.model_fields_set or not options.tls
    return settings.port if chosen else PORT


def address(settings: Settings, options: ServingOptions) -> str:
    """The URL of the service."""
    return f"{'https' if options.tls else 'http'}://{settings.host}:{port(settings, options)}"


def context(found: Certificate) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer. Raises BadConfig where the files do not go together."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(made, found)
    return made


def keep_fresh(made: ssl.SSLContext, options: ServingOptions, cache: Path, found: Certificate) -> None:
    """Watches in a thread of its own; connections from then on get the certificate that is there then."""

    def watch() -> None:
        stamps = found.stamps
        while True:
            pause.wait(_LOOK_S)
            stamps = refresh(made, options, cache, stamps)

    pause = threading.Event()
    threading.Thread(target=watch, name="tls", daemon=True).start()


def refresh(
    made: ssl.SSLContext, options: ServingOptions, cache: Path, stamps: tuple[int, int]
) -> tuple[int, int]:
    """Renews what is due and loads what changed since `stamps`; a bad file leaves the old one serving."""
    try:
        found = certificate(options, cache)
        if found.stamps != stamps:
            context(found)  # tried elsewhere: a chain without its key would leave `made` with neither
            _load(made, found)
            log.info("a new certificate serves", extra={"file": str(found.chain)})
        return found.stamps
    except (OSError, BadConfig) as error:
        log.error("the certificate cannot be renewed", extra={"reason": str(error)})
        return stamps


def _load(made: ssl.SSLContext, found: Certificate) -> None:
    try:
        made.load_cert_chain(found.chain, found.key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"TLS: {found.chain} and {found.key} cannot be used: {error}") from None


def _is_good(found: Certificate) -> bool:
    from cryptography import x509

    try:
        parsed = x509.load_pem_x509_certificate(found.chain.read_bytes())
        found.key.stat()
    except (OSError, ValueError):
        return False
    return parsed.not_valid_after_utc - datetime.now(UTC) > _RENEWED


def _generate(found: Certificate) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Data Alchemy")])
    names: list[Any] = [x509.DNSName(host) for host in dict.fromkeys(("localhost", socket.gethostname()))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # for clients whose clock is a little behind
        .not_valid_after(now + _LASTS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found.chain.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(found.key, private)
    _write(found.chain, made.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    fresh.replace(path)
