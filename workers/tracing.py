"""One trace from submit to webhook, by W3C `traceparent`: through the ledger row, the worker and the delivered event.

OpenTelemetry is optional (extra `otel`): without `VERIFRAME_OTLP_ENDPOINT` nothing of it is imported and a span costs one comparison.
A caller's own `traceparent` is carried along in either case.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
_NAME: Final = "veriframe"
_current: TracerProvider | None = None
_lock: Final = threading.Lock()


def trace_id_of(traceparent: str | None) -> str | None:
    """The 32 hex digits of a valid `traceparent`: what logs, exemplars and trace viewers are searched by."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found is not None and int(found[1], 16) else None


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """A running span, or none when tracing is off."""

    traceparent: str | None
    """Goes on to whoever works next; the given one when tracing is off."""
    span: Span | None = None

    def note(self, **attributes: str | float | bool | None) -> None:
        """Add facts; None is left out."""
        if self.span is not None:
            self.span.set_attributes({f"{_NAME}.{name}": value for name, value in attributes.items() if value is not None})

    def failed(self, code: str) -> None:
        """Mark the work as failed for this reason."""
        if self.span is not None:
            from opentelemetry.trace import Status, StatusCode

            self.span.set_status(Status(StatusCode.ERROR, code))


@contextmanager
def span(
    name: str, *, traceparent: str | None = None, kind: str = "INTERNAL", **attributes: str | float | bool | None
) -> Iterator[OpenSpan]:
    """Run a block as a span below `traceparent`, or as a new trace.

    Args:
        name: what is done, e.g. `veriframe screen`.
        traceparent: of the work before; anything that is none begins a new trace.
        kind: an OpenTelemetry span kind.
        attributes: facts, `veriframe.` is put before their names.
    """
    tracer = _tracer()
    if tracer is None:
        yield OpenSpan(traceparent)
        return
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(name, context=_context(traceparent), kind=SpanKind[kind]) as running:
        opened = OpenSpan(_traceparent(running), running)
        opened.note(**attributes)
        yield opened


def record(name: str, *, below: str | None, seconds: float, **attributes: str | float | bool | None) -> None:
    """Record work that ended just now and took `seconds`, below the span `below`."""
    tracer = _tracer()
    if tracer is None:
        return
    end = time.time_ns()
    ended = tracer.start_span(name, context=_context(below), start_time=end - int(seconds * 1e9))
    OpenSpan(None, ended).note(**attributes)
    ended.end(end)


def configure_tracing(endpoint: str | None, *, component: str) -> None:
    """Send spans to an OTLP/HTTP collector; does nothing without an endpoint. Call once, where the process starts.

    Raises:
        SettingsError: an endpoint is set and OpenTelemetry is not installed.
    """
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as err:
        raise SettingsError(
            "VERIFRAME_OTLP_ENDPOINT is set and OpenTelemetry is missing: pip install 'veriframe[otel]', or unset it"
        ) from err
    provider = TracerProvider(resource=Resource.create({"service.name": f"veriframe-{component}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")))
    use_provider(provider)


def use_provider(provider: TracerProvider | None) -> None:
    """Send the spans of this process to `provider` from now on; None turns tracing off."""
    global _current  # noqa: PLW0603 - one tracer per process, as logging has one root
    with _lock:
        _current = provider


def stop_tracing() -> None:
    """Send what is left and stop; last thing before exit."""
    provider = _current
    if provider is not None:
        use_provider(None)
        provider.shutdown()


def _tracer() -> Tracer | None:
    return None if _current is None else _current.get_tracer(_NAME)


def _context(traceparent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {} if trace_id_of(traceparent) is None else {"traceparent": traceparent or ""}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())


def _traceparent(running: Any) -> str:
    context = running.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
