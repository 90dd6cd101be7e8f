import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from alchemy.errors import BadConfig
from alchemy.settings import Settings
from serving import tls
from serving.options import ServingOptions
from tests.ports import free_ports
from tests.serving.conftest import eventually

ROOT = Path(__file__).parents[2]


def generated(cache: Path) -> tls.Certificate:
    return tls.certificate(ServingOptions(), cache)


def parsed(found: tls.Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(found.chain.read_bytes())


def test_a_generated_certificate_names_this_machine_and_hides_its_key(tmp_path: Path) -> None:
    found = generated(tmp_path)
    names = parsed(found).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", socket.gethostname()}
    assert "127.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))
    assert stat.S_IMODE(found.key.stat().st_mode) == 0o600
    assert tls.context(found).minimum_version == ssl.TLSVersion.TLSv1_2
    assert sorted(path.name for path in found.chain.parent.iterdir()) == ["certificate.pem", "key.pem"]


def test_a_certificate_is_kept_until_a_month_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = parsed(generated(tmp_path)).serial_number
    assert parsed(generated(tmp_path)).serial_number == first
    monkeypatch.setattr(tls, "_LASTS", timedelta(days=20))
    (tmp_path / "tls" / "certificate.pem").write_text("damaged")
    short = parsed(generated(tmp_path))
    assert short.serial_number != first
    monkeypatch.setattr(tls, "_LASTS", timedelta(days=365))
    renewed = parsed(generated(tmp_path))
    assert renewed.serial_number != short.serial_number
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=300)


def test_a_certificate_that_was_replaced_serves_without_a_restart(tmp_path: Path) -> None:
    generated(tmp_path / "a")
    given = generated(tmp_path / "a")
    options = ServingOptions(tls_certificate=given.chain, tls_key=given.key)
    context, stamps = tls.context(given), given.stamps
    assert tls.refresh(context, options, tmp_path, stamps) == stamps
    old, other = generated(tmp_path / "a"), generated(tmp_path / "b")
    before = parsed(old).public_bytes(Encoding.DER)
    trusted = tls.Certificate(tmp_path / "before.pem", old.key)
    trusted.chain.write_bytes(old.chain.read_bytes())
    for half in ("chain", "key"):  # half replaced, in either order: the files do not go together
        path = getattr(given, half)
        whole = path.read_bytes()
        path.write_bytes(getattr(other, half).read_bytes())
        assert tls.refresh(context, options, tmp_path, stamps) == stamps
        with handshake(context, trusted) as served:
            assert served == before
        path.write_bytes(whole)
    given.key.write_bytes(other.key.read_bytes())
    given.chain.write_bytes(other.chain.read_bytes())
    assert tls.refresh(context, options, tmp_path, stamps) == given.stamps
    with handshake(context, other) as served:
        assert served == ssl.PEM_cert_to_DER_cert(other.chain.read_text())


def test_a_certificate_without_its_key_and_a_wrong_one_are_refused(tmp_path: Path) -> None:
    found = generated(tmp_path)
    with pytest.raises(ValueError, match="come together"):
        ServingOptions(tls_certificate=found.chain)
    with pytest.raises(BadConfig, match="cannot be used"):
        tls.context(tls.Certificate(found.chain, found.chain))


@pytest.mark.parametrize(
    ("settings", "options", "url"),
    [
        ({}, {}, "http://127.0.0.1:8000"),
        ({}, {"tls": True}, "https://127.0.0.1:8443"),
        ({"port": 9000}, {"tls": True}, "https://127.0.0.1:9000"),
        ({"port": 9000}, {}, "http://127.0.0.1:9000"),
    ],
)
def test_https_has_its_own_port_unless_one_is_chosen(
    settings: dict[str, int], options: dict[str, bool], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALCHEMY_PORT", raising=False)
    assert tls.address(Settings(**settings), ServingOptions(**options)) == url


def test_alchemy_serve_answers_by_https_and_asks_browsers_to_stay_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "ALCHEMY_STORE": str(tmp_path / "store"),
        "ALCHEMY_CACHE": str(tmp_path / "cache"),
        "ALCHEMY_CATALOG": str(ROOT / "models.yaml"),
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, "-m", "alchemy.cli", "serve", "--tls", "--port", str(port), "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    chain = tmp_path / "cache" / "tls" / "certificate.pem"
    try:
        eventually(lambda: chain.exists() or process.poll() is not None)
        trusting = ssl.create_default_context(cafile=str(chain))
        trusting.verify_flags |= ssl.VERIFY_X509_STRICT
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusting, timeout=60) as http:
            eventually(lambda: answers(http))
            response = http.get("/healthz")
            assert response.headers["strict-transport-security"].startswith("max-age=")
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert orjson.loads(output) == {"address": f"https://127.0.0.1:{port}"}


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.ConnectError:
        return False


@contextmanager
def handshake(context: ssl.SSLContext, trusted: tls.Certificate) -> Iterator[bytes | None]:
    """What a client of `context` is shown, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    trusting = ssl.create_default_context(cafile=str(trusted.chain))
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    yield client.getpeercert(binary_form=True)
