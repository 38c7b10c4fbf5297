"""The broker behind TLS, as deploy/README.md spells the URL: our client and Celery's both check whom they talk to."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.integration.servers import RedisServer, free_port, missing
from workers.app import celery_url, make_app
from workers.broker import check_access, connect, wait_for
from workers.errors import BrokerUnavailableError
from workers.settings import Settings

pytestmark = pytest.mark.integration
MAKE = """
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=broker -addext subjectAltName=IP:127.0.0.1
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out cert.pem
openssl req -x509 -newkey rsa:2048 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that speaks TLS only; gives its port and the folder of the certificates."""
    if shutil.which("openssl") is None:
        missing("openssl")
    binary, folder, port = RedisServer.binary(), tmp_path_factory.mktemp("tls"), free_port()
    if binary is None:
        missing("redis-server")
    subprocess.run(["sh", "-ec", MAKE], cwd=folder, check=True, capture_output=True, timeout=60)
    users = "user default off\nuser worker on >secret ~* &* +@all\n"
    (folder / "users.acl").write_text(users)
    tls = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem", "--tls-auth-clients", "no"]
    command = [str(binary), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", "users.acl", *tls]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    client, end = connect(url_of(port, f"ssl_ca_certs={folder / 'ca.pem'}")), time.monotonic() + 30
    while True:
        try:
            client.ping()
            break
        except redis.RedisError:
            if process.poll() is not None:
                missing("redis-server with TLS")  # the embedded Valkey speaks none
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
    client.close()
    yield port, folder
    process.terminate()
    process.wait(timeout=20)


def url_of(port: int, query: str, *, host: str = "127.0.0.1") -> str:
    return f"rediss://worker:secret@{host}:{port}/0?{query}"


def celery_reaches(url: str) -> bool:
    with make_app(Settings(), broker_url=url).connection() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=10)
        return bool(connection.default_channel.client.ping())


@pytest.mark.parametrize("query", ["ssl_cert_reqs=required&ssl_ca_certs={ca}", "ssl_ca_certs={ca}"])
def test_both_clients_reach_a_broker_that_their_authority_vouches_for(server, query):
    port, folder = server
    url = url_of(port, query.format(ca=folder / "ca.pem"))
    client = connect(url)
    wait_for(client, seconds=10)
    check_access(client, url, strict=True)
    client.close()
    assert celery_reaches(url)


@pytest.mark.parametrize("query", ["", "ssl_ca_certs={other}", "ssl_cert_reqs=required&ssl_ca_certs={other}"])
def test_both_clients_refuse_a_broker_that_nobody_vouches_for(server, query):
    port, folder = server
    url = url_of(port, query.format(other=folder / "other.pem"))
    with pytest.raises(BrokerUnavailableError):
        wait_for(connect(url), seconds=0.1)
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        celery_reaches(url)


def test_both_clients_refuse_a_certificate_of_another_name(server):
    port, folder = server
    url = url_of(port, f"ssl_ca_certs={folder / 'ca.pem'}", host="localhost")
    with pytest.raises(BrokerUnavailableError):
        wait_for(connect(url), seconds=0.1)
    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        celery_reaches(url)


def test_clear_text_to_a_tls_port_is_refused(server):
    port, _folder = server
    with pytest.raises(BrokerUnavailableError):
        wait_for(connect(f"redis://worker:secret@127.0.0.1:{port}/0"), seconds=0.1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_ca_certs=/ca.pem", "rediss://h:1/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required"),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("unix:///run/b.sock?db=0", "redis+socket:///run/b.sock?db=0"),
    ],
)
def test_celery_is_told_to_check_certificates(url, expected):
    assert celery_url(url) == expected
