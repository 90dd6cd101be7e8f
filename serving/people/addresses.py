"""Where a request comes from, as far as it can be known.

The connection tells. What a header says counts only where the connection is that of a proxy that the operator
named: anybody can write an X-Forwarded-For.
"""

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_UNKNOWN = "unknown"


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """The client's address; of IPv6 its /64, which is what one customer gets.

    From the right of X-Forwarded-For every trusted proxy is passed over; the first other address is the
    client's, and whatever stands left of it may be made up.
    """
    client = scope.get("client")
    hops = [client[0]] if client else []
    forwarded = Headers(scope=scope).getlist("x-forwarded-for")
    hops[:0] = [hop.strip() for line in forwarded for hop in line.split(",")]
    for hop in reversed(hops):
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            return _UNKNOWN
        if not any(address in network for network in trusted):
            break
    else:
        return _UNKNOWN if not hops else _named(ipaddress.ip_address(hops[0]))
    return _named(address)


def _named(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
