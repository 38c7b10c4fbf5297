"""s3 sources against a server on loopback that speaks the two requests of the protocol that a fetch needs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workers.errors import MediaGoneError, MediaUnavailableError, SourceNotAllowedError
from workers.settings import Settings
from workers.sources import ConfiguredSources

CONTENT = b"moving pictures" * 100_000


class ObjectStore(BaseHTTPRequestHandler):
    """One bucket with one object."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if self.path.startswith("/uploads/refused-"):
            code = self.path.split("?")[0].removeprefix("/uploads/refused-")
            page = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if body:  # a HEAD cannot say why
                self.wfile.write(page)
            return
        if self.path.split("?")[0] != "/uploads/vid.mp4":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = 0, len(CONTENT) - 1
        if asked := self.headers.get("Range"):
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
        part = CONTENT[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
        self.send_header("ETag", f'"{hashlib.md5(CONTENT).hexdigest()}"')
        self.send_header("Last-Modified", "Fri, 20 Nov 2026 09:00:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[ConfiguredSources]:
    s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    s3fs.S3FileSystem.clear_instance_cache()  # it keeps the endpoint of its first use
    server = ThreadingHTTPServer(("127.0.0.1", 0), ObjectStore)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield ConfiguredSources(Settings(s3_allowed_buckets=("uploads",)), temp_dir=tmp_path)
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_object_is_copied_and_hashed(sources: ConfiguredSources) -> None:
    media = sources.fetch("vid", source="s3://uploads/vid.mp4", content_sha256=None, cancel=threading.Event())

    assert media.num_bytes == len(CONTENT)
    assert media.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert media.file.read() == CONTENT
    media.close()


def test_a_missing_object_is_named(sources: ConfiguredSources) -> None:
    with pytest.raises(MediaGoneError):
        sources.fetch("vid", source="s3://uploads/none.mp4", content_sha256=None, cancel=threading.Event())


@pytest.mark.parametrize("key", ["vid.mp4#fake.mp4", "vid.mp4?fake.mp4", "/vid.mp4"])
def test_a_key_is_taken_as_it_is_and_names_no_other_object(sources: ConfiguredSources, key: str) -> None:
    with pytest.raises(MediaGoneError):
        sources.fetch("vid", source=f"s3://uploads/{key}", content_sha256=None, cancel=threading.Event())


def test_a_version_is_refused_instead_of_being_left_out(sources: ConfiguredSources) -> None:
    with pytest.raises(SourceNotAllowedError, match="versionId"):
        sources.fetch("vid", source="s3://uploads/vid.mp4?versionId=1", content_sha256=None, cancel=threading.Event())


def test_a_store_that_does_not_answer_is_worth_another_try(sources: ConfiguredSources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(MediaUnavailableError):
        sources.fetch("vid", source="s3://uploads/vid.mp4", content_sha256=None, cancel=threading.Event())


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_credentials_and_clocks_that_are_refused_are_worth_another_try(sources: ConfiguredSources, code: str) -> None:
    with pytest.raises(MediaUnavailableError, match=code):
        sources.fetch("vid", source=f"s3://uploads/refused-{code}", content_sha256=None, cancel=threading.Event())


def test_an_object_that_may_not_be_read_is_gone(sources: ConfiguredSources) -> None:
    with pytest.raises(MediaGoneError):
        sources.fetch("vid", source="s3://uploads/refused-AccessDenied", content_sha256=None, cancel=threading.Event())
