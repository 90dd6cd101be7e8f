from ipaddress import ip_network

import pytest

from serving.options import ServingOptions
from serving.people.addresses import client_address

PROXIES = [ip_network("10.0.0.0/8")]


def address(client: str, *forwarded: str, trusted: bool = True) -> str:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    return client_address({"client": (client, 1), "headers": headers}, PROXIES if trusted else [])


@pytest.mark.parametrize(
    ("client", "forwarded", "found"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # not a proxy of ours: it may write what it wants
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "unknown"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_proxy_of_ours(
    client: str, forwarded: list[str], found: str
) -> None:
    assert address(client, *forwarded) == found


def test_without_a_trusted_proxy_no_header_is_believed() -> None:
    assert address("10.0.0.1", "198.51.100.1", trusted=False) == "10.0.0.1"


def test_proxies_are_named_by_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCHEMY_SERVING_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")
    assert ServingOptions().trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
