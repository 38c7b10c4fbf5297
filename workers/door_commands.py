"""Commands about who may come in and what is forgotten: `veriframe keys`, `forget`, `audit`. Heavy imports stay inside."""

from __future__ import annotations

import getpass
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .errors import UnknownVideoError
from .logs import configure_logs
from .settings import Settings, load_settings
from .terminal import make_console

if TYPE_CHECKING:
    from .ledger import Ledger

commands = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="API keys: make, list, revoke; what a tenant may take.")
commands.add_typer(keys, name="keys")

KEY_PREFIX = "vf_"
"""Lets secret scanners recognise a key that was committed by mistake."""
Tenant = Annotated[str, typer.Option(help="Whose it is; empty: the house's own")]


@contextmanager
def _opened(component: str) -> Iterator[tuple[Settings, Ledger]]:
    from .ledger import Ledger

    settings = load_settings(log_level="error")
    configure_logs(level=settings.log_level, component=component)
    ledger = Ledger.open(settings.resolved_ledger_url, create=component == "keys")  # a key may be made before anything runs
    try:
        yield settings, ledger
    finally:
        ledger.close()


def operator() -> str:
    """Who runs this command, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return "cli"


def _require_tenant(tenant: str) -> None:
    from .web.auth import TENANT

    if tenant and TENANT.fullmatch(tenant) is None:
        raise typer.BadParameter("a tenant is 1-64 characters of A-Z a-z 0-9 _ -")


@keys.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="What it is for", show_default=False)],
    scope: Annotated[list[str], typer.Option(help="submit, read, review or admin; repeat for more", show_default=False)],
    tenant: Tenant = "",
    days: Annotated[float | None, typer.Option(min=0.001, help="It ends after so many days; without: when it is revoked")] = None,
) -> None:
    """Make a key and print it once; only its hash is kept."""
    from .web.auth import check_scopes, key_digest

    if not 1 <= len(name) <= 64:
        raise typer.BadParameter("a name has 1-64 characters")
    _require_tenant(tenant)
    check_scopes(frozenset(scope), tenant=tenant)
    key, key_id = KEY_PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
    with _opened("keys") as (_settings, ledger):
        ledger.add_key(
            key_id=key_id, digest=key_digest(key), name=name, scopes=sorted(set(scope)), tenant=tenant, days=days, actor=operator()
        )
    make_console(stderr=True).print(f"key {key_id} made; it is shown this once, send it in the header X-API-Key:", highlight=False)
    sys.stdout.write(key + "\n")


@keys.command("list")
def list_keys(as_json: Annotated[bool, typer.Option("--json", help="One object per line")] = False) -> None:
    """Show every key that was ever made: never the key itself."""
    with _opened("keys") as (_settings, ledger):
        rows = ledger.list_keys()
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(asdict(row)) + "\n")
        return
    table = Table("key", "name", "tenant", "scopes", "state", "made", "ends")
    for row in rows:
        table.add_row(row.key_id, row.name, row.tenant or "-", ",".join(row.scopes), row.state, _day(row.created_at), _day(row.expires_at))
    make_console().print(table)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="First column of `veriframe keys list`", show_default=False)]) -> None:
    """End a key now; the next request with it is refused."""
    with _opened("keys") as (_settings, ledger):
        ledger.revoke_key(key_id, actor=operator())
    make_console().print(f"key {key_id} opens nothing any more", highlight=False)


@keys.command("limit")
def limit_tenant(
    tenant: Tenant = "",
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="0: no limit; without: the setting decides")] = None,
    videos_per_day: Annotated[int | None, typer.Option(min=0, help="0: no limit; without: the setting decides")] = None,
) -> None:
    """Set what one tenant may take; running APIs follow within seconds."""
    from .ledger import TenantLimits

    _require_tenant(tenant)
    with _opened("keys") as (_settings, ledger):
        ledger.set_limits(tenant, TenantLimits(requests_per_minute, videos_per_day), actor=operator())


@commands.command()
def forget(video_id: Annotated[str, typer.Argument(help="Video ID", show_default=False)], tenant: Tenant = "") -> None:
    """Remove every trace of one video from ledger and broker; the audit log keeps that it was asked. Cannot be undone."""
    from .broker import connect
    from .embedded import resolve_broker_url
    from .forget import forget_video

    with _opened("forget") as (settings, ledger):
        client = connect(resolve_broker_url(settings))
        try:
            forgotten = forget_video(ledger, client, video_id, tenant=tenant, actor=operator())
        finally:
            client.close()
    if forgotten.is_empty:
        raise UnknownVideoError(f"nothing about a video {video_id!r:.80} is on record here")
    sys.stdout.write(json.dumps({"video_id": video_id, "removed": forgotten.as_json()}) + "\n")


@commands.command()
def audit(
    target: Annotated[str | None, typer.Option(help="Only about this key, tenant or video")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
) -> None:
    """Print who changed what, newest first, as JSON lines."""
    with _opened("audit") as (_settings, ledger):
        for entry in ledger.audit_entries(target=target, limit=limit):
            sys.stdout.write(json.dumps(asdict(entry)) + "\n")


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()
