"""The guard on every outgoing connection: resolve once, check every address, connect to the checked one.

Private, loopback, link-local (cloud metadata), CGNAT, multicast and NAT64 or IPv4-mapped forms of them are refused, at
every redirect again. No proxies from the environment.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urljoin

import httpx

from .errors import MediaUnavailableError, SourceNotAllowedError

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_INSIDE: Final = [
    # addresses that Python counts as global, all or in some versions, and that lead inside a network or a machine's cloud
    ipaddress.ip_network("fec0::/10"),  # IPv6 site-local
    ipaddress.ip_network("192.0.0.0/24"),  # IETF protocol assignments; 192.0.0.192 is Oracle's metadata service
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's platform services
]
_PORTS: Final = {"http": 80, "https": 443}
MAX_REDIRECTS: Final = 3


def is_public(address: str) -> bool:
    """Whether an IP address is reachable by everybody; embedded IPv4 addresses are unwrapped first."""
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None:
            return is_public(str(ip.sixtofour))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    if any(ip in network for network in _INSIDE):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


def host_of(url: httpx.URL) -> str:
    """The host of a URL, its name decoded.

    Raises:
        SourceNotAllowedError: the name is no internationalised domain name although it says so (`xn--`).
    """
    try:
        return url.host
    except ValueError as err:
        raise SourceNotAllowedError(f"the URL's host is no domain name ({err}); send an address that resolves") from err


def checked_address(url: httpx.URL, *, private_hosts: Collection[str] = ()) -> str:
    """Resolve a URL's host once and give one address that may be connected to.

    Args:
        url: absolute http(s) URL.
        private_hosts: `host:port` pairs that may resolve to private addresses.

    Raises:
        SourceNotAllowedError: scheme, userinfo or one of the addresses is not allowed.
        MediaUnavailableError: the name does not resolve.
    """
    if url.scheme not in _PORTS or not host_of(url):
        raise SourceNotAllowedError(f"only http(s) URLs with a host are fetched, got scheme {url.scheme!r:.20}")
    if url.userinfo:
        raise SourceNotAllowedError("a URL must not carry credentials")
    port = url.port or _PORTS[url.scheme]
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise MediaUnavailableError(f"host {url.host!r:.80} does not resolve: {err}") from err
    addresses = [str(entry[4][0]) for entry in found]
    if f"{url.host}:{port}" not in private_hosts:
        refused = [address for address in addresses if not is_public(address)]
        if refused:
            raise SourceNotAllowedError(f"host {url.host!r:.80} points to an address that is not public; it is never connected to")
    return addresses[0]


def pinned_request(client: httpx.Client, method: str, url: httpx.URL, *, address: str, **options: object) -> httpx.Request:
    """A request that goes to `address` while TLS and the Host header still name the URL's host."""
    host = f"[{address}]" if ":" in address else address
    headers = {**dict(options.pop("headers", {}) or {}), "Host": url.netloc.decode()}  # type: ignore[call-overload]
    return client.build_request(
        method,
        url.copy_with(host=host),
        headers=headers,
        extensions={"sni_hostname": url.host},
        **options,  # type: ignore[arg-type]
    )


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return httpx.URL(urljoin(str(url), location))
    except ValueError as err:
        raise SourceNotAllowedError("the source redirects to what is no URL") from err


@contextmanager
def open_checked(
    address: str, *, allowed_hosts: Collection[str], private_hosts: Collection[str], seconds: float
) -> Iterator[httpx.Response]:
    """GET a URL through the guard, following at most three redirects, each checked again; the body is streamed.

    Raises:
        SourceNotAllowedError: a host is not on the allow-list, an address is not public, or there are too many redirects.
        MediaUnavailableError: the server is down or slow.
    """
    try:
        url = httpx.URL(address)
        with httpx.Client(trust_env=False, timeout=httpx.Timeout(min(seconds, 10.0)), follow_redirects=False) as client:
            for _hop in range(MAX_REDIRECTS + 1):
                if host_of(url) not in allowed_hosts:
                    raise SourceNotAllowedError(f"host {url.host!r:.80} is not on the list VERIFRAME_HTTP_ALLOWED_HOSTS")
                request = pinned_request(
                    client,
                    "GET",
                    url,
                    address=checked_address(url, private_hosts=private_hosts),
                    headers={"Accept-Encoding": "identity"},
                )
                response = client.send(request, stream=True)
                try:
                    if not response.is_redirect:
                        yield response
                        return
                    url = _redirected(url, response.headers.get("location", ""))
                finally:
                    response.close()
            raise SourceNotAllowedError(f"more than {MAX_REDIRECTS} redirects")
    except httpx.InvalidURL as err:
        raise SourceNotAllowedError(f"this is no URL: {err}") from err
    except (httpx.TransportError, httpx.StreamError) as err:
        raise MediaUnavailableError(f"the source did not answer: {type(err).__name__}") from err
