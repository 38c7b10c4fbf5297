"""Whether decoders are locked in is probed by trying, shown on health pages, and a reason not to start."""

from __future__ import annotations

import json
import urllib.request

import pytest
from structlog.testing import capture_logs

from api_caller import make_caller
from detect_core.video import sandbox_probe
from detect_core.video.sandbox_probe import ACTS, SandboxReport, judge, probe_sandbox
from workers import decode_sandbox
from workers.decode_sandbox import require_sandbox
from workers.errors import SandboxError
from workers.ledger import Ledger
from workers.metrics import Metrics
from workers.probes import Probes, serve_probes
from workers.settings import Settings

LAYERS = {"no_new_privileges": True, "resource_limits": True, "seccomp": True, "landlock_abi": 4, "level": "full"}
ALL = dict.fromkeys(ACTS, True)


def test_the_probe_finds_the_sandbox_of_this_machine_closed():
    report = probe_sandbox()
    if not report.state.get("seccomp"):
        pytest.skip("this kernel or container denies seccomp")
    assert report.holds
    assert dict(report.refused) == ALL


@pytest.mark.parametrize(
    ("state", "refused", "level", "holds"),
    [
        (LAYERS, ALL, "full", True),
        ({**LAYERS, "landlock_abi": 0, "level": "partial"}, ALL, "partial", True),
        (LAYERS, {**ALL, "network": False}, "leaky", False),
        ({**LAYERS, "seccomp": False, "level": "partial"}, {**ALL, "new_process": False}, "partial", False),
        ({**LAYERS, "seccomp": False, "landlock_abi": 0, "level": "rlimits"}, {"take_memory": True}, "rlimits", False),
    ],
)
def test_attempts_count_more_than_promises(state, refused, level, holds):
    report = judge(state, refused)
    assert (report.level, report.holds) == (level, holds)


def test_a_probe_that_does_not_come_back_is_unknown(monkeypatch):
    monkeypatch.setattr(sandbox_probe.sys, "executable", "/bin/false")
    report = probe_sandbox.__wrapped__()
    assert (report.level, report.holds) == ("unknown", False)


def test_a_worker_does_not_start_where_the_sandbox_leaks(monkeypatch):
    leaky = SandboxReport(level="leaky", state=LAYERS, refused={**ALL, "network": False})
    monkeypatch.setattr(decode_sandbox, "probe_sandbox", lambda *_, **__: leaky)
    with pytest.raises(SandboxError, match=r"could still: network.*VERIFRAME_ALLOW_UNSANDBOXED_DECODE"):
        require_sandbox(Settings())
    assert require_sandbox(Settings(allow_unsandboxed_decode=True)) == "leaky"


def test_health_of_the_api_shows_layers_and_attempts():
    ledger = Ledger.in_memory()
    shown = make_caller(ledger).get("/health").json()["decode_sandbox"]
    ledger.close()
    assert shown == probe_sandbox().as_json()
    assert set(shown) == {"level", "holds", "layers", "refused"}


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_health_of_a_worker_shows_it_too(ready, status):
    probes = Probes(is_ready=lambda: ready, facts=lambda: decode_sandbox.sandbox_facts(Settings()))
    server = serve_probes(probes, host="127.0.0.1", port=0, metrics=Metrics())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _KeepErrors())
    with opener.open(f"http://127.0.0.1:{server.server_address[1]}/health", timeout=60) as answer:
        body = json.load(answer)
        assert answer.status == status
    server.shutdown()
    server.server_close()
    assert body["decode_sandbox"] == probe_sandbox().as_json()


# --- hardware decoding

USUAL = SandboxReport(level="full", state=LAYERS, refused=ALL)
WEAKER = {**LAYERS, "opened_for": "graphics driver", "level": "partial"}


@pytest.mark.parametrize(
    ("found", "in_use", "level"),
    [
        (SandboxReport(level="partial", state=WEAKER, refused=ALL, no_device=""), "cuda", "partial"),
        (SandboxReport(level="full", state=LAYERS, refused=ALL, no_device="no card"), "off", "full"),
        (SandboxReport(level="leaky", state=WEAKER, refused={**ALL, "read_file": False}, no_device=""), "off", "full"),
        (SandboxReport(level="unknown", no_device="its probe did not come back"), "off", "full"),
    ],
    ids=["proven", "no-card", "leaky", "crashed"],
)
def test_a_card_is_used_where_it_proves_itself_and_the_weaker_sandbox_holds(monkeypatch, found, in_use, level):
    monkeypatch.setattr(decode_sandbox, "probe_sandbox", lambda kind="off", **_: USUAL if kind == "off" else found)
    settings = Settings(hardware_decode="cuda")
    with capture_logs() as logs:
        assert require_sandbox(settings) == level
    assert [line["event"] for line in logs] == ([] if in_use == "cuda" else ["hardware_decode_unavailable"])
    facts = decode_sandbox.sandbox_facts(settings)
    assert facts["decode_sandbox"]["level"] == level
    assert (facts["hardware_decode"]["asked_for"], facts["hardware_decode"]["in_use"]) == ("cuda", in_use)
    assert "hardware_decode" not in decode_sandbox.sandbox_facts(Settings())


def test_this_machine_is_asked_for_its_card():
    report = probe_sandbox("cuda")
    assert report.no_device is not None
    assert probe_sandbox().no_device is None
    if report.no_device:
        assert (dict(report.state), dict(report.refused)) == (dict(probe_sandbox().state), dict(probe_sandbox().refused))


def test_metrics_say_whether_the_card_decodes_and_how_videos_were_decoded():
    metrics = Metrics()
    assert "hardware_decode_info{" not in metrics.expose("")[0].decode()
    metrics.prepare_hardware_decode("cuda", in_use="off")
    page = metrics.expose("")[0].decode()
    assert 'veriframe_hardware_decode_info{asked_for="cuda",in_use="off"} 1.0' in page
    assert 'veriframe_hardware_decodes_total{outcome="unavailable"} 0.0' in page


class _KeepErrors(urllib.request.HTTPErrorProcessor):
    def http_response(self, _request, response):
        return response
