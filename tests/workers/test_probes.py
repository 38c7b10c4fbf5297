"""The probe server of a process: what it answers, and metrics as plain text or OpenMetrics."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from tests.integration.servers import free_port
from workers import probes as probes_module
from workers.broker import MemoryDispatcher
from workers.errors import BrokerUnavailableError
from workers.ingest import Ingest
from workers.janitor import Janitor
from workers.ledger import Ledger
from workers.metrics import Metrics
from workers.probes import LoopWatch, Probes, serve_probes
from workers.services import _serve_probes
from workers.settings import Settings

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def asked():
    """(state to change, client): a server whose answers follow the state."""
    state = {"started": False, "live": True, "ready": False}
    metrics = Metrics()
    metrics.end_to_end_seconds.labels(queue="default").observe(2.0, {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
    probes = Probes(is_started=lambda: state["started"], is_live=lambda: state["live"], is_ready=lambda: state["ready"])
    server = serve_probes(probes, host="127.0.0.1", port=0, metrics=metrics)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", timeout=30) as client:
        yield state, client
    server.shutdown()
    server.server_close()


def test_each_probe_answers_for_itself(asked):
    state, client = asked
    for path, name in (("/startupz", "started"), ("/livez", "live"), ("/readyz", "ready")):
        for value in (False, True):
            state[name] = value
            assert client.get(path).status_code == (200 if value else 503), path
    assert client.get("/elsewhere").status_code == 404


def test_a_scrape_that_asks_for_openmetrics_gets_exemplars_and_others_get_plain_text(asked):
    _state, client = asked
    plain, modern = client.get("/metrics"), client.get("/metrics", headers={"accept": OPEN_METRICS})
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert '# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 2.0' in modern.text
    assert modern.text.endswith("# EOF\n")
    assert modern.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in client.get("/metrics", headers={"accept-encoding": "identity"}).headers


def test_a_process_whose_loop_hangs_is_not_live(monkeypatch):
    ahead, real = [0.0], time.monotonic
    monkeypatch.setattr(probes_module.time, "monotonic", lambda: real() + ahead[0])
    settings, watch = Settings(metrics_port=free_port(), api_host="127.0.0.1"), LoopWatch()
    _serve_probes(SimpleNamespace(settings=settings, metrics=Metrics()), watch)

    def answer():
        return httpx.get(f"http://127.0.0.1:{settings.metrics_port}/livez", timeout=30).status_code

    assert answer() == 200
    ahead[0] = 400.0
    assert answer() == 503
    watch.tick()
    assert answer() == 200


@pytest.mark.parametrize("part", ["ingest", "janitor"])
def test_waiting_for_broker_or_ledger_is_no_hanging(part, monkeypatch):
    ledger, metrics = Ledger.in_memory(), Metrics()
    if part == "ingest":
        loop = Ingest(SimpleNamespace(get=lambda _key: None), ledger, SimpleNamespace(), metrics=metrics, owner="i")
    else:
        loop = Janitor(ledger, MemoryDispatcher(), client=None, settings=Settings(), metrics=metrics, owner="j")
    ticks, stop = [], threading.Event()
    monkeypatch.setattr(loop.watch, "tick", lambda: ticks.append(1))

    def away():
        if len(ticks) == 2:
            stop.set()
        raise BrokerUnavailableError("away")

    monkeypatch.setattr(loop, "step", away)
    loop.run(stop)
    ledger.close()
    assert len(ticks) == 2
