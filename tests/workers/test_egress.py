"""The guard on outgoing connections: no private address is ever connected to."""

from __future__ import annotations

import httpx
import pytest

from workers.egress import checked_address, is_public
from workers.errors import MediaUnavailableError, SourceNotAllowedError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:db8::1", "198.18.0.1", "192.0.2.1", "fec0::1", "192.0.0.192", "168.63.129.16",
        "::ffff:168.63.129.16",
    ],
)  # fmt: skip
def test_addresses_that_are_never_connected_to(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8080/x",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://user:pw@example.com/",
    ],
)
def test_urls_that_lead_inside_are_refused(url):
    with pytest.raises((SourceNotAllowedError, MediaUnavailableError)):
        checked_address(httpx.URL(url))


@pytest.mark.parametrize("url", ["ftp://example.com/x", "file:///etc/passwd", "gopher://127.0.0.1/", "http:///nohost"])
def test_other_schemes_are_refused(url):
    with pytest.raises(SourceNotAllowedError):
        checked_address(httpx.URL(url))


def test_a_private_host_needs_its_exact_port_on_the_list():
    assert checked_address(httpx.URL("http://127.0.0.1:9000/x"), private_hosts=("127.0.0.1:9000",)) == "127.0.0.1"
    with pytest.raises(SourceNotAllowedError):
        checked_address(httpx.URL("http://127.0.0.1:9001/x"), private_hosts=("127.0.0.1:9000",))
