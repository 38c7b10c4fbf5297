"""The pinned set has no known vulnerability, and a service that knows nothing is not taken for a clean bill."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.audit import ServiceUnreachableError, audit, look_up, pins

ADVISORY = {
    "id": "PYSEC-0000-1",
    "summary": "made up",
    "affected": [{"package": {"name": "requests", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99.0"}]}]}],
}


@pytest.fixture
def service(monkeypatch):
    """An advisory service on this machine that knows one vulnerable package; gives pip-audit's arguments for it."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"vulns": [ADVISORY]} if asked["package"]["name"] == "requests" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield ("-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/query")
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_pinned_set_has_no_known_vulnerability():
    try:
        found = audit()
    except ServiceUnreachableError as err:
        pytest.skip(f"no advisory service answers, the pinned set is not audited here ({err})")
    assert not found.findings, "raise the pin, or say in tests.audit why it does not concern us"
    assert not found.unaudited
    assert found.num_audited == len(pins())


def test_a_vulnerable_pin_is_found_and_a_clean_one_is_not(service):
    found = look_up(["requests==2.19.0", "idna==3.10"], service, seconds=60.0)
    assert found.findings == ("requests 2.19.0: PYSEC-0000-1 (fixed in 99.0)",)
    assert (found.num_audited, found.is_clean) == (2, False)
    assert look_up(["idna==3.10"], service, seconds=60.0).is_clean


def test_no_answer_is_not_a_clean_bill():
    with pytest.raises(ServiceUnreachableError):
        look_up(["idna==3.10"], ("-s", "osv", "--osv-url", "http://127.0.0.1:1/query"), seconds=60.0)


def test_every_package_has_one_exact_version():
    names = [pin.split("==")[0].lower().replace("_", "-") for pin in pins()]
    assert len(names) == len(set(names)) > 100
