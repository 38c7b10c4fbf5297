"""Video ID -> private local copy: allow-lists, links, pipes, redirects, budgets, hashes, and nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detect_core.errors import ScreeningCancelled
from workers.errors import (
    FetchTooLargeError,
    InvalidVideoIdError,
    MediaChangedError,
    MediaGoneError,
    MediaUnavailableError,
    SourceError,
    SourceNotAllowedError,
)
from workers.retry import decide
from workers.settings import Settings
from workers.sources import ConfiguredSources, locate

CONTENT = b"moving pictures" * 1000


@pytest.fixture
def roots(tmp_path) -> Path:
    media = tmp_path / "media"
    (media / "sub").mkdir(parents=True)
    (media / "vid.mp4").write_bytes(CONTENT)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (media / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (media / "linked").symlink_to(tmp_path)
    (media / "dir.mp4").mkdir()
    os.mkfifo(media / "pipe.mp4")
    return tmp_path


def sources(roots: Path, **changes) -> ConfiguredSources:
    media = roots / "media"
    temp = roots / "tmp"
    temp.mkdir(exist_ok=True)
    fields = {"media_template": f"{media}/{{video_id}}.mp4", "media_roots": (media,), **changes}
    return ConfiguredSources(Settings(**fields), temp_dir=temp)


def fetch(roots: Path, video_id: str = "vid", *, source=None, content_sha256=None, cancel=None, tenant="", **changes):
    asked = {"source": source, "content_sha256": content_sha256, "tenant": tenant}
    return sources(roots, **changes).fetch(video_id, cancel=cancel or threading.Event(), **asked)


def test_a_file_is_copied_hashed_and_leaves_no_name(roots):
    media = fetch(roots)
    assert media.file.read() == CONTENT
    assert (media.sha256, media.num_bytes) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert media.file.fileno() > 0
    assert list((roots / "tmp").iterdir()) == []
    media.close()


@pytest.mark.parametrize(
    ("video_id", "error"),
    [("missing", MediaGoneError), ("link", SourceNotAllowedError), ("dir", SourceNotAllowedError), ("pipe", SourceNotAllowedError)],
)
def test_what_is_not_a_plain_file_is_refused(roots, video_id, error):
    with pytest.raises(error):
        fetch(roots, video_id)
    assert list((roots / "tmp").iterdir()) == []


def test_sources_outside_the_roots_are_refused(roots):
    outside = [
        "/etc/passwd",
        "file:///etc/passwd",
        f"file://{roots}/secret.mp4",
        f"{roots}/media/../secret.mp4",
        f"file://{roots}/media/%2e%2e/secret.mp4",
        f"{roots}/media/linked/secret.mp4",
        f"file://otherhost{roots}/media/vid.mp4",
        "relative/path",
        "/proc/self/environ",
    ]
    for source in outside:
        with pytest.raises(SourceError):
            fetch(roots, source=source)


@pytest.mark.parametrize("source", ["http://[::1", "//[x", "https://[x]/y", "s3://[b/k", "file:///{media}/a%00b", "{media}/a\0b"])
def test_what_is_no_location_is_refused_for_good(roots, source):
    with pytest.raises(SourceNotAllowedError) as refused:
        fetch(roots, source=source.replace("{media}", str(roots / "media")))
    assert not decide(refused.value, retries=0).retryable


@pytest.mark.parametrize("source", ["ftp://h/x", "gopher://h/", "data:text/plain,x", "concat:a|b", "http://example.com/x", "s3://bucket/x"])
def test_what_no_list_allows_is_refused(roots, source):
    with pytest.raises(SourceNotAllowedError):
        fetch(roots, source=source)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(video_id=st.text(max_size=140))
def test_no_id_ever_opens_anything_outside(roots, video_id):
    try:
        fetch(roots, video_id).close()
    except (InvalidVideoIdError, MediaGoneError, SourceNotAllowedError):
        return
    assert video_id == "vid"


@pytest.fixture
def tenants(roots) -> Path:
    for tenant in ("acme", "rival"):
        (roots / "media" / tenant).mkdir()
        (roots / "media" / tenant / "vid.mp4").write_bytes(tenant.encode())
    return roots


def in_folders(roots: Path, **asked) -> bytes:
    media = fetch(roots, media_template=f"{roots}/media/{{tenant}}/{{video_id}}.mp4", **asked)
    with media.file:
        return media.file.read()


def test_a_template_with_the_tenant_gives_each_a_folder_of_its_own(tenants):
    assert [in_folders(tenants, tenant=tenant) for tenant in ("acme", "rival", "")] == [b"acme", b"rival", CONTENT]
    own = f"{tenants}/media/rival/vid.mp4"
    assert in_folders(tenants, tenant="rival", source=own) == b"rival"
    assert in_folders(tenants, tenant="rival", source=f"file://{own}") == b"rival"
    assert in_folders(tenants, source=own) == b"rival", "the house reads all"
    with fetch(tenants, tenant="rival", source=own.replace("/rival/", "/acme/")).file as shared:
        assert shared.read() == b"acme", "without it roots are shared"


@pytest.mark.parametrize(
    "source",
    [
        "{media}/acme/vid.mp4",
        "file://{media}/acme/vid.mp4",
        "FILE://{media}/rival/%2e%2e/acme/vid.mp4",
        "{media}/rival/../acme/vid.mp4",
        "{media}/vid.mp4",
        "{media}/rivals/vid.mp4",
        "s3://uploads/acme/vid.mp4",
    ],
)
def test_a_tenant_names_no_file_in_another_ones_folder(tenants, source):
    with pytest.raises(SourceNotAllowedError, match="this tenant's folder"):
        in_folders(tenants, tenant="rival", source=source.format(media=tenants / "media"), s3_allowed_buckets=("uploads",))


@pytest.mark.parametrize(
    ("template", "source", "is_own"),
    [
        ("s3://uploads/{tenant}/{video_id}.mp4", "s3://uploads/rival/a#b.mp4", True),
        ("s3://uploads/{tenant}/{video_id}.mp4", "S3://uploads/acme/a.mp4", False),
        ("s3://uploads/{tenant}/{video_id}.mp4", "s3://others/rival/a.mp4", False),
        ("s3://uploads/{tenant}/{video_id}.mp4", "/media/rival/a.mp4", False),
        ("s3://uploads/{tenant}/{video_id}.mp4", "https://cdn.example/a.mp4?signed=1", True),
        ("https://cdn.example/{tenant}/{video_id}.mp4", "https://cdn.example/rival/a.mp4?signed=1", True),
        ("https://cdn.example/{tenant}/{video_id}.mp4", "http://CDN.example.:80/acme/a.mp4", False),
        ("https://cdn.example/{tenant}/{video_id}.mp4", "https://cdn.example/rival/%2E%2E/acme/a.mp4", False),
    ],
)
def test_objects_and_urls_are_held_to_the_folder_as_files_are(template, source, is_own):
    settings = Settings(media_template=template)
    if is_own:
        assert locate(settings, "vid", source=source, tenant="rival") == source
    else:
        with pytest.raises(SourceNotAllowedError):
            locate(settings, "vid", source=source, tenant="rival")


def test_budgets_and_hashes_hold(roots):
    with pytest.raises(FetchTooLargeError, match="100 bytes"):
        fetch(roots, fetch_max_bytes=100)
    with pytest.raises(MediaChangedError, match="submit it again") as changed:
        fetch(roots, content_sha256="0" * 64)
    assert hashlib.sha256(CONTENT).hexdigest() not in str(changed.value), "who asks may not be who may read it"
    fetch(roots, content_sha256=hashlib.sha256(CONTENT).hexdigest()).close()
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(ScreeningCancelled):
        fetch(roots, cancel=cancel)
    assert list((roots / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT])
def test_a_passing_fault_of_the_volume_is_worth_another_try(roots, monkeypatch, number):
    real = os.open

    def broken(path, *arguments, **options):
        if path == "vid.mp4":
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(MediaUnavailableError):
        fetch(roots)


def test_a_volume_that_is_not_mounted_is_worth_another_try(roots):
    (roots / "media").rename(roots / "elsewhere")
    with pytest.raises(MediaUnavailableError, match="media root"):
        fetch(roots)


def test_a_volume_that_fails_while_it_is_read_is_worth_another_try(roots):
    with pytest.raises(MediaUnavailableError, match="on the way"):  # the kernel answers EIO: nothing is mapped at address 0
        fetch(roots, source="/proc/self/mem", media_roots=(Path("/proc/self"),))


def test_a_name_that_no_file_can_have_is_no_fault_of_the_volume(roots):
    with pytest.raises(MediaGoneError):
        fetch(roots, source=f"{roots}/media/{'x' * 300}")


class MediaServer:
    """Answers on loopback and counts its visitors."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.hits.append(self.path)
                if self.path.startswith("/redirect/"):
                    self.send_response(302)
                    self.send_header("Location", self.path.removeprefix("/redirect/").replace("PORT", str(outer.port)))
                    self.end_headers()
                elif self.path == "/slow":
                    self.send_response(200)
                    self.end_headers()
                    for _ in range(100):
                        self.wfile.write(b"x")
                        self.wfile.flush()
                        time.sleep(0.05)
                elif self.path == "/vid.mp4":
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(CONTENT)
                else:
                    self.send_error(int(self.path.strip("/")))

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    return

            def log_message(self, *_arguments) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[MediaServer]:
    running = MediaServer()
    yield running
    running.server.shutdown()
    running.server.server_close()


def over_http(roots: Path, server: MediaServer, path: str, **changes):
    allowed = {"http_allowed_hosts": ("127.0.0.1",), "http_private_hosts": (f"127.0.0.1:{server.port}",), **changes}
    return fetch(roots, source=f"http://127.0.0.1:{server.port}{path}", **allowed)


def test_http_is_fetched_when_its_host_is_listed(roots, server):
    media = over_http(roots, server, "/vid.mp4")
    assert media.file.read() == CONTENT
    media.close()
    media = over_http(roots, server, f"/redirect/http://127.0.0.1:{server.port}/vid.mp4")
    assert media.num_bytes == len(CONTENT)
    media.close()


def test_nothing_inside_is_ever_visited(roots, server):
    with pytest.raises(SourceNotAllowedError):
        over_http(roots, server, "/vid.mp4", http_private_hosts=())
    with pytest.raises(SourceNotAllowedError):
        over_http(roots, server, "/vid.mp4", http_allowed_hosts=())
    assert server.hits == []


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest/meta-data", "http://localhost:PORT/vid.mp4", "file:///etc/passwd", "//10.0.0.1/x", "http://[x"],
)
def test_a_redirect_is_checked_again(roots, server, target):
    with pytest.raises(SourceError):
        over_http(roots, server, f"/redirect/{target}", http_allowed_hosts=("127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1"))
    assert len(server.hits) == 1


def test_a_redirect_loop_ends(roots, server):
    loop = "/redirect//redirect//redirect//redirect//redirect//vid.mp4"
    with pytest.raises(SourceNotAllowedError, match="redirects"):
        over_http(roots, server, loop)
    assert len(server.hits) == 4


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, MediaGoneError), (403, MediaGoneError), (410, MediaGoneError), (500, MediaUnavailableError), (503, MediaUnavailableError)],
)
def test_statuses_become_typed_errors(roots, server, status, error):
    with pytest.raises(error):
        over_http(roots, server, f"/{status}")


def test_a_slow_server_runs_into_the_time_budget(roots, server):
    started = time.monotonic()
    with pytest.raises(MediaUnavailableError, match="did not arrive"):
        over_http(roots, server, "/slow", fetch_seconds=0.3)
    assert time.monotonic() - started < 3


def test_a_server_that_is_down_is_worth_another_try(roots, server):
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(MediaUnavailableError) as caught:
        over_http(roots, server, "/vid.mp4")
    assert caught.value.retryable
