"""Settings of the service: the only reader of the environment. Every variable starts with `VERIFRAME_`.

Order: keyword argument, environment variable, default. Lists are written as JSON (`VERIFRAME_MEDIA_ROOTS='["/media"]'`).
`VERIFRAME_X_FILE=/path` reads `VERIFRAME_X` from a file, which is how secrets come into containers.
`Settings.as_environment()` gives the variables back, so that a supervisor can hand the same settings to its children.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSettingError

from .errors import SettingsError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base) / "veriframe" if base else Path.home() / ".local" / "state" / "veriframe"


def _default_concurrency(given: dict[str, Any]) -> int:
    """Each video in flight keeps one core busy decoding; a GPU needs many to be fed."""
    cores = len(os.sched_getaffinity(0))
    return min(32, max(4, cores)) if str(given.get("device", "cpu")).startswith("cuda") else min(4, cores)


def _with_files(given: Mapping[str, str | None], names: Collection[str]) -> dict[str, str | None]:
    """The variables `given`, in lower case, and for every `<name>_FILE` among them the text of that file."""
    found = dict(given)
    for name in names:
        path = given.get(f"veriframe_{name}_file")
        if path is None:
            continue
        variable = f"VERIFRAME_{name.upper()}"
        if given.get(f"veriframe_{name}"):
            raise SettingsError(f"both {variable} and {variable}_FILE are set: keep one")
        try:
            found[f"veriframe_{name}"] = Path(path).read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as err:
            why = err.strerror if isinstance(err, OSError) else "not UTF-8"
            raise SettingsError(
                f"{variable}_FILE names {path!r}, which cannot be read ({why}): mount the secret, readable for user {os.getuid()}, "
                "or unset the variable"
            ) from err
    return found


class Settings(BaseSettings):
    """All settings, with unit, default and reason. Immutable."""

    model_config = SettingsConfigDict(env_prefix="VERIFRAME_", extra="forbid", frozen=True, validate_default=True)

    # where things are
    state_dir: Path = Field(default_factory=_default_state_dir, description="Folder of the embedded broker and ledger")
    broker_url: str | None = Field(None, description="redis:// URL of the broker; None starts and uses the embedded one")
    broker_strict: bool = Field(
        False, description="Refuse to start on a broker without TLS (beyond this machine), password or a user of its own; else warn"
    )
    broker_private_network: bool = Field(
        False, description="Nobody else is on the network to the broker, as in docker-compose.yml: clear text counts as no problem there"
    )
    embedded_broker_port: int = Field(0, ge=0, le=65535, description="TCP port of the embedded broker on 127.0.0.1; 0 = unix socket only")
    embedded_broker_memory_bytes: int = Field(256 * 1024**2, gt=0, description="maxmemory of the embedded broker; it refuses, never evicts")
    ledger_url: str | None = Field(None, description="SQLAlchemy URL of the ledger; None = SQLite in the state folder")
    sqlite_synchronous: Literal["normal", "full"] = Field(
        "normal", description="normal survives any process kill; full also survives power loss, at one disk flush per write"
    )
    bundle_set: str | None = Field(None, description="Bundle set: a path or the name of a shipped one; None = the shipped default")
    evidence_thumbnails: bool = Field(False, description="Keep small face pictures of the worst moments in verdicts; face data, so off")
    explanation_seconds: float = Field(
        900.0, ge=0, description="Heat-maps and annotated clips show faces: made when a person asks, kept this long; 0 = never made"
    )
    shadow_bundle_set: str | None = Field(
        None, description="A second bundle set that scores the same crops; its opinion is kept, never published"
    )
    shadow_review_share: float = Field(0.05, ge=0, le=1, description="Share of the shadow's disagreements that people look at")
    device: str = Field("cpu", description="torch device of this worker")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Of the detectors; auto takes bf16 where the device is fast at it and a probe's scores hold; near a threshold fp32 decides",
    )
    compile_nets: bool = Field(False, description="Compile the nets with TorchInductor: slow first batches, needs a C++ compiler")
    face_model: Path | None = Field(None, description="YuNet ONNX file to find faces with; None = the built-in MTCNN")

    # media sources
    media_template: str = Field(
        "/media/{video_id}.mp4",
        description="Where a bare video ID is looked up; a path or a URL. With `/{tenant}/` before the ID each tenant has a folder of its own",
    )
    media_roots: tuple[Path, ...] = Field((Path("/media"),), description="Only files under these folders are ever opened")
    http_allowed_hosts: tuple[str, ...] = Field((), description="Hosts that http(s) sources may name; empty = http is off")
    http_private_hosts: tuple[str, ...] = Field((), description="Of these, `host:port` pairs that may resolve to private addresses")
    s3_allowed_buckets: tuple[str, ...] = Field((), description="Buckets that s3 sources may name; empty = s3 is off")
    fetch_max_bytes: Count = Field(4 * 1024**3, description="Byte budget of one fetch")
    fetch_seconds: Seconds = Field(120.0, description="Wall-clock budget of one fetch")

    # worker
    concurrency: Count = Field(default_factory=_default_concurrency, description="Videos in flight in one worker process")
    dispatch_lanes: tuple[Literal["urgent", "default", "bulk", "isolate"], ...] = Field(
        ("urgent", "isolate", "default", "bulk"), description="Lanes this worker serves, in strict order"
    )
    video_soft_seconds: Seconds = Field(840.0, description="Screening gets this long before it is cancelled")
    video_hard_seconds: Seconds = Field(900.0, description="A thread still stuck then makes the process hand back its leases and exit")
    lease_seconds: Seconds = Field(60.0, description="A dead worker's videos are taken back after this time")
    max_crashes: Count = Field(3, description="Leases that may die under one video before it is POISONED")
    self_test_seconds: float = Field(
        1800.0, ge=0, description="Golden self-test again after this time, besides the one at start; 0 = only then"
    )
    drain_seconds: float = Field(20.0, ge=0, description="Running videos may finish this long after SIGTERM")
    exit_seconds: Seconds = Field(40.0, description="The process is gone this long after SIGTERM, whatever hangs")
    memory_limit_bytes: int = Field(0, ge=0, description="Above this resident size the worker drains and exits for a restart; 0 = off")
    visibility_timeout_seconds: Count = Field(120, description="Broker's redelivery time; renewed while a video runs")
    allow_unsandboxed_decode: bool = Field(
        False, description="Let a worker start where the kernel or the container denies seccomp: decoders then see files and network"
    )
    hardware_decode: Literal["off", "cuda"] = Field(
        "off",
        description="Decode on the graphics card where it proves itself at start, else in software; its driver needs a weaker decode sandbox",
    )
    decode_threads: int = Field(
        0,
        ge=0,
        le=16,
        description="Threads of one decoder; 0 = one, and in `veriframe scan`, where a video is alone, one per core up to four",
    )
    renew_deliveries: bool = Field(True, description="Renew broker deliveries of running videos (saves needless copies)")

    # ingest and janitor
    dispatch_bound: Count = Field(256, description="Messages that may wait in one dispatch queue; the rest waits in the ledger")
    resend_seconds: Seconds = Field(30.0, description="A dispatched but unclaimed video is dispatched again after this time")
    pump_seconds: Seconds = Field(0.25, description="Pause between looks for due rows")
    backlog_limit: Count = Field(1_000_000, description="More waiting videos than this are refused with 503")
    bulk_age_limit_seconds: Seconds = Field(3600.0, description="Older bulk videos move up one lane so that strict order starves nobody")
    default_age_limit_seconds: Seconds = Field(900.0, description="Older default videos move up one lane")
    leader_seconds: Seconds = Field(10.0, description="A dead janitor's leadership is taken over after this time")
    ingest_batch: Count = Field(256, description="Messages per ledger transaction")
    stream_idle_seconds: Seconds = Field(30.0, description="Stream entries of a silent reader are claimed after this time")
    retention_days: Count = Field(
        90, description="Finished jobs with their history, and dead letters, are removed after this time; verdicts stay longer"
    )
    verdict_retention_days: int = Field(365, ge=0, description="Verdicts and their reviews are removed after this time; 0 = kept for ever")

    # webhooks
    webhook_url: str | None = Field(None, description="Gets every verdict.completed event, besides a job's own callback_url")
    webhook_secret: SecretStr | None = Field(None, description="Standard Webhooks secret, `whsec_<base64>`")
    webhook_secret_previous: SecretStr | None = Field(None, description="Second active secret during a rotation")
    webhook_private_hosts: tuple[str, ...] = Field((), description="`host:port` pairs that may resolve to private addresses")
    webhook_tries: Count = Field(5, description="Deliveries before an event becomes a dead letter")
    webhook_seconds: Seconds = Field(10.0, description="Time limit of one delivery, from the connection to the status of the answer")
    webhook_parallel: Count = Field(16, description="Deliveries at once, by the leading janitor; receivers see them in any order")
    webhook_backoff_seconds: Seconds = Field(5.0, description="First pause between tries; doubles, plus jitter")

    # servers
    api_host: str = Field("127.0.0.1", description="Address of the API")
    api_port: int = Field(8080, ge=0, le=65535, description="Port of the API")
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses and networks of proxies whose X-Forwarded-Proto and -For the API believes; * = anybody who reaches it",
    )
    api_keys: tuple[str, ...] = Field(
        (),
        description="`scope[,scope][@tenant]:sha256hex` per key, beside those of `veriframe keys`; none at all = open, on loopback only",
    )
    requests_per_minute: int = Field(
        6000, ge=0, description="API requests of one tenant per minute, unless it has its own limit; 0 = no limit"
    )
    videos_per_day: int = Field(0, ge=0, description="Videos one tenant may submit per day (UTC), unless it has its own; 0 = no limit")
    web_secret: SecretStr | None = Field(None, description="Signs the dashboard's sessions; None = made once and kept in the state folder")
    session_hours: Seconds = Field(12.0, description="A reviewer's session ends this many hours after the login")
    review_claim_seconds: Seconds = Field(
        600.0, description="A video opened by one reviewer is closed to the others this long; renewed while open"
    )
    review_copy_bytes: int = Field(
        1024**3,
        ge=0,
        description="Disk for copies of videos from s3 and https that reviewers play, one up to a quarter of it; kept 15 minutes; 0 = not shown",
    )
    second_read_share: float = Field(0.0, ge=0, le=1, description="Share of decisions that a second person reads without seeing the first")
    body_limit_bytes: Count = Field(1024**2, description="Larger request bodies are refused")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of /metrics, /startupz, /livez and /readyz of a worker, ingest or janitor; 0 = off"
    )
    otlp_endpoint: str | None = Field(
        None, description="OTLP/HTTP collector that gets traces, e.g. http://collector:4318; needs the extra otel"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.video_hard_seconds < self.video_soft_seconds:
            raise ValueError(
                f"video_hard_seconds ({self.video_hard_seconds}) must not be below video_soft_seconds ({self.video_soft_seconds})"
            )
        if self.exit_seconds < self.drain_seconds:
            raise ValueError(f"exit_seconds ({self.exit_seconds}) must not be below drain_seconds ({self.drain_seconds})")
        if 0 < self.verdict_retention_days < self.retention_days:
            raise ValueError(
                f"verdict_retention_days ({self.verdict_retention_days}) must not be below retention_days ({self.retention_days})"
            )
        if "{video_id}" not in self.media_template:
            raise ValueError(f"media_template must contain {{video_id}}, got {self.media_template!r}")
        before, _, after = self.media_template.partition("{video_id}")
        # a whole folder before the ID: of `{tenant}-{video_id}` two tenants could mean one file
        if set("{}") & set(before.replace("/{tenant}/", "/", 1) + after.replace("{video_id}", "")):
            raise ValueError(f"media_template may name the tenant as one folder before the ID, `/{{tenant}}/`, got {self.media_template!r}")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",):
            for proxy in value:
                ip_network(proxy)  # what is none would be compared as a name, and never hold
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of the sources; the environment with the files that it names."""
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = _with_files(env_settings.env_vars, cls.model_fields)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @property
    def resolved_ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger in use."""
        return self.ledger_url or f"sqlite:///{self.state_dir / 'ledger.sqlite3'}"

    @property
    def heartbeat_seconds(self) -> float:
        """Pause between lease renewals: three may fail before a lease runs out."""
        return self.lease_seconds / 4

    def as_environment(self) -> dict[str, str]:
        """The `VERIFRAME_*` variables that make an equal `Settings` in a child process; secrets included."""
        environment: dict[str, str] = {}
        for name, value in self.model_dump(mode="json").items():
            if value is None:
                continue
            raw: Any = getattr(self, name)
            plain = raw.get_secret_value() if isinstance(raw, SecretStr) else value
            environment[f"VERIFRAME_{name.upper()}"] = plain if isinstance(plain, str) else json.dumps(plain)
        return environment


def load_settings(**overrides: Any) -> Settings:
    """Read the environment once; `overrides` (command-line options) win over it.

    Raises:
        SettingsError: a value is missing, of the wrong type or out of range, or its file cannot be read; the message names each variable.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as err:
        lines = [f"VERIFRAME_{'_'.join(str(part) for part in e['loc']).upper() or 'SETTINGS'}: {e['msg']}" for e in err.errors()]
        raise SettingsError("these settings cannot work, correct or unset them: " + "; ".join(lines)) from err
    except UnreadableSettingError as err:
        raise SettingsError(f"a setting could not be read, lists are written as JSON such as '[\"/media\"]': {err}") from err


def base_environment() -> dict[str, str]:
    """The process environment without our variables, for child processes that get theirs from `as_environment`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VERIFRAME_")}
