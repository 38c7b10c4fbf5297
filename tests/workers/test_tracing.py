"""One trace from submit to webhook, and nothing at all when tracing is off."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detect_core.structs import Sampling, Verdict, VideoInfo
from workers import tracing
from workers.broker import MemoryDispatcher
from workers.errors import SettingsError
from workers.intake import Intake
from workers.ledger import Ledger, Submission
from workers.messages import EnqueueRequest
from workers.metrics import Metrics
from workers.screening import Screening
from workers.settings import Settings
from workers.sources import ConfiguredSources
from workers.webhooks import WebhookSender

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class OneVerdict:
    def screen(self, _file, *, on_stage, **_options):
        on_stage("decode", 0.25, 0.1)
        return Verdict(
            verdict="authentic",
            p_fake=0.1,
            reason_codes=(),
            sentence="s",
            video=VideoInfo(64, 64, 1.0, 25, 1, "h264", "mp4", "yuv420p", 0),
            sampling=Sampling("uniform", 8, 8, 4, (0.0,)),
            bundle_set="b@1",
            policy="p",
        )

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def receiver():
    """(URL, headers of what arrived): a receiver of webhooks."""
    headers: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", headers
    server.shutdown()
    server.server_close()


@pytest.fixture
def spans():
    """Spans that ended, by a real SDK with an exporter in memory."""
    pytest.importorskip("opentelemetry.sdk", reason="pip install veriframe[otel]")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_provider(provider)
    yield exporter
    tracing.stop_tracing()


def travel(tmp_path, address: str, *, trace_id: str | None, media: bool = True) -> Metrics:
    """One video from intake to webhook in this thread."""
    if media:
        (tmp_path / "vid.mp4").write_bytes(b"bytes")
    settings = Settings(
        media_template=f"{tmp_path}/{{video_id}}.mp4",
        media_roots=(tmp_path,),
        webhook_url=f"http://{address}/hook",
        webhook_private_hosts=(address,),
    )
    metrics, ledger = Metrics(), Ledger.in_memory()
    intake = Intake(ledger, MemoryDispatcher(), metrics=metrics, resend_seconds=30, backlog_limit=10)
    [job] = intake.accept([Submission(request=EnqueueRequest(video_id="vid"), door="http", trace_id=trace_id)])
    screening = Screening(
        ledger=ledger, screener=OneVerdict(), sources=ConfiguredSources(settings), metrics=metrics, settings=settings, owner="w1"
    )
    screening.run(job.ledger_id, lane="default")
    sender = WebhookSender(ledger, settings=settings, metrics=metrics)
    assert sender.deliver_due() == 1
    sender.close()
    ledger.close()
    return metrics


@pytest.mark.parametrize("given", [CALLER, None, "no traceparent at all"])
def test_one_trace_goes_from_submit_to_webhook(tmp_path, spans, receiver, given):
    address, headers = receiver
    metrics = travel(tmp_path, address, trace_id=given)
    ended = {span.name: span for span in spans.get_finished_spans()}
    assert set(ended) == {"veriframe submit", "veriframe screen", "fetch", "decode", "store", "veriframe webhook"}
    (trace,) = {f"{span.context.trace_id:032x}" for span in ended.values()}
    parents = {name: span.parent and span.parent.span_id for name, span in ended.items()}
    submit, screen = ended["veriframe submit"].context.span_id, ended["veriframe screen"].context.span_id
    assert parents["veriframe screen"] == parents["veriframe webhook"] == submit
    assert {parents[name] for name in ("fetch", "decode", "store")} == {screen}
    assert parents["veriframe submit"] == (0x00F067AA0BA902B7 if given == CALLER else None)
    assert (trace == tracing.trace_id_of(CALLER)) == (given == CALLER)
    assert headers[0]["traceparent"].split("-")[1] == trace
    assert ended["decode"].end_time - ended["decode"].start_time == 250_000_000
    assert ended["veriframe screen"].attributes["veriframe.verdict"] == "authentic"
    page, _content_type = metrics.expose("application/openmetrics-text;version=1.0.0")
    assert f'trace_id="{trace}"' in page.decode(), "the exemplar leads to the trace"


def test_a_failure_marks_the_span_of_its_try(tmp_path, spans, receiver):
    address, _headers = receiver
    travel(tmp_path, address, trace_id=None, media=False)
    (screen,) = [span for span in spans.get_finished_spans() if span.name == "veriframe screen"]
    assert screen.status.status_code.name == "ERROR"
    assert screen.status.description


def test_without_tracing_the_callers_traceparent_still_travels(tmp_path, receiver):
    address, headers = receiver
    travel(tmp_path, address, trace_id=CALLER)
    assert headers[0]["traceparent"] == CALLER


def test_an_endpoint_without_the_package_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SettingsError, match=r"pip install 'veriframe\[otel\]'"):
        tracing.configure_tracing("http://127.0.0.1:4318", component="worker")
    tracing.configure_tracing(None, component="worker")


def test_spans_arrive_at_a_collector_over_http(spans, receiver):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install veriframe[otel]")
    address, headers = receiver
    tracing.configure_tracing(f"http://{address}/", component="worker")
    with tracing.span("veriframe screen", video_id="vid"):
        pass
    tracing.stop_tracing()
    assert headers[0]["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("text", [None, "", "00-abc-def-01", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", json.dumps(CALLER)])
def test_what_is_no_traceparent_names_no_trace(text):
    assert tracing.trace_id_of(text) is None
