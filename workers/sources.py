"""Video ID -> private local copy. The copy is an unlinked temporary file: no crash can leave it behind.

File sources are opened component by component with O_NOFOLLOW below an allowed root; http(s) goes through the egress guard
and is off until hosts are listed; s3 needs the extra `veriframe[s3]` and listed buckets. Everything is hashed while copied,
within a byte and a time budget. URLs are never logged.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from detect_core.errors import ScreeningCancelled

from .egress import open_checked
from .errors import FetchTooLargeError, InvalidVideoIdError, MediaChangedError, MediaGoneError, MediaUnavailableError, SourceNotAllowedError
from .messages.enqueue import VIDEO_ID
from .settings import Settings

_CHUNK: Final = 1024 * 1024
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
_LINK_OR_DEVICE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
"""What opening a file says of the file itself; every other number is about the machine or the volume, and passes."""

_REFUSED_OBJECT: Final = frozenset({"AccessDenied", "AllAccessDisabled", "InvalidObjectState", "403"})
"""Codes of an object store that are about the object; the others (credentials, clocks) are about us, and pass."""


@dataclass(frozen=True, slots=True)
class FetchedMedia:
    """A private copy of one video, positioned at its start. Closing it frees the disk space."""

    file: BinaryIO
    sha256: str
    num_bytes: int

    def close(self) -> None:
        """Free the copy."""
        self.file.close()


class Sources(Protocol):
    """Where media come from."""

    def fetch(
        self, video_id: str, *, source: str | None, content_sha256: str | None, cancel: threading.Event, tenant: str = ""
    ) -> FetchedMedia:
        """Copy one video to a private local file.

        Raises:
            SourceNotAllowedError, MediaGoneError, MediaUnavailableError, FetchTooLargeError, MediaChangedError: see workers.errors.
            ScreeningCancelled: `cancel` was set.
        """
        ...


class ConfiguredSources:
    """The sources that the settings allow."""

    def __init__(self, settings: Settings, *, temp_dir: Path | None = None) -> None:
        self._settings = settings
        self._temp_dir = temp_dir or Path(tempfile.gettempdir())

    def fetch(
        self, video_id: str, *, source: str | None, content_sha256: str | None, cancel: threading.Event, tenant: str = ""
    ) -> FetchedMedia:
        if VIDEO_ID.fullmatch(video_id) is None:
            raise InvalidVideoIdError(f"video_id {video_id!r:.60} is not allowed: 1-128 characters of A-Z a-z 0-9 _ -")
        location = locate(self._settings, video_id, source=source, tenant=tenant)
        scheme = split_location(location).scheme.lower()
        if scheme in ("", "file"):
            opened = self._open_file(location)
        elif scheme in ("http", "https"):
            opened = self._open_http(location)
        elif scheme == "s3":
            opened = self._open_s3(location)
        else:
            raise SourceNotAllowedError(f"scheme {scheme!r:.20} is not fetched: use file, https or s3")
        with opened as chunks:
            media = self._copy(chunks, cancel=cancel)
        if content_sha256 is not None and media.sha256 != content_sha256:
            media.close()
            # without the file's own hash: who asks may not be who may read it
            raise MediaChangedError(f"the file of {video_id} has another SHA-256 than the request, {content_sha256}: submit it again")
        return media

    @contextmanager
    def _open_file(self, location: str) -> Iterator[Iterable[bytes]]:
        parts = split_location(location)
        if parts.netloc not in ("", "localhost"):
            raise SourceNotAllowedError(f"file URLs must not name a host, got {parts.netloc!r:.60}")
        path = PurePosixPath(unquote(parts.path) if parts.scheme else location)
        root = next((root for root in self._settings.media_roots if path.is_relative_to(root)), None)
        if root is None or ".." in path.parts:
            raise SourceNotAllowedError("the file is outside VERIFRAME_MEDIA_ROOTS")
        try:
            descriptor = open_beneath(root, PurePosixPath(path.relative_to(root)))
        except OSError as err:
            if err.errno in _GONE:
                raise MediaGoneError(f"no readable file for this ID ({err.strerror}): check the ID and the media template") from err
            if err.errno in _LINK_OR_DEVICE:
                raise SourceNotAllowedError(f"the file cannot be opened without following a link ({err.strerror})") from err
            raise MediaUnavailableError(f"the file cannot be opened now ({err.strerror}): look at the volume and at this worker") from err
        except ValueError as err:  # a NUL, or half of a surrogate pair
            raise SourceNotAllowedError("the path holds a character that no file name can have") from err
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceNotAllowedError("the source is not a regular file")
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            yield _chunks(file.read, failures=(OSError,))

    @contextmanager
    def _open_http(self, location: str) -> Iterator[Iterable[bytes]]:
        settings = self._settings
        with open_checked(
            location,
            allowed_hosts=settings.http_allowed_hosts,
            private_hosts=settings.http_private_hosts,
            seconds=settings.fetch_seconds,
        ) as response:
            if response.status_code in (401, 403, 404, 410):
                raise MediaGoneError(f"the source answered {response.status_code}: the file is not there or may not be read")
            if response.status_code != 200:
                raise MediaUnavailableError(f"the source answered {response.status_code}")
            yield response.iter_bytes()  # as it arrives: a drip-feeding server must meet the deadline

    @contextmanager
    def _open_s3(self, location: str) -> Iterator[Iterable[bytes]]:
        # no URL parsing: `#` and `?` are letters of a key like others, and cut off there it would name another object
        bucket, _, key = location.partition("://")[2].partition("/")
        if bucket not in self._settings.s3_allowed_buckets:
            raise SourceNotAllowedError(f"bucket {bucket!r:.80} is not on the list VERIFRAME_S3_ALLOWED_BUCKETS")
        if "?versionId=" in key:  # the client would cut it off and read the newest version
            raise SourceNotAllowedError("s3 sources name a key, not a version: send s3://bucket/key without ?versionId=")
        try:
            import fsspec
            from botocore.exceptions import BotoCoreError

            filesystem = fsspec.filesystem("s3")
        except ImportError as err:
            raise SourceNotAllowedError("s3 sources need the extra: pip install 'veriframe[s3]'") from err
        try:
            remote = filesystem.open(f"{bucket}/{key}", "rb")
        except FileNotFoundError as err:
            raise MediaGoneError("the bucket has no such readable object") from err
        except PermissionError as err:
            if (code := _why_refused(filesystem, f"{bucket}/{key}", err)) in _REFUSED_OBJECT:
                raise MediaGoneError("the bucket has no such readable object") from err
            raise MediaUnavailableError(f"the object store refuses this worker ({code:.40}): check its credentials and its clock") from err
        except (OSError, BotoCoreError) as err:  # what the client says of a dead endpoint is no OSError
            raise MediaUnavailableError(f"the object store did not answer: {type(err).__name__}") from err
        with remote:
            yield _chunks(remote.read, failures=(OSError, BotoCoreError))

    def _copy(self, chunks: Iterable[bytes], *, cancel: threading.Event) -> FetchedMedia:
        budget, seconds = self._settings.fetch_max_bytes, self._settings.fetch_seconds
        deadline = time.monotonic() + seconds
        digest, total = hashlib.sha256(), 0
        copy = unlinked_file(self._temp_dir)
        try:
            for chunk in chunks:
                total += len(chunk)
                if total > budget:
                    raise FetchTooLargeError(f"the file holds more than the {budget} bytes that one video may take")
                if cancel.is_set():
                    raise ScreeningCancelled("cancelled while the video was fetched")
                if time.monotonic() > deadline:
                    raise MediaUnavailableError(f"the file did not arrive within {seconds:g} s")
                digest.update(chunk)
                copy.write(chunk)
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return FetchedMedia(file=copy, sha256=digest.hexdigest(), num_bytes=total)


def _chunks(read: Callable[[int], bytes], *, failures: tuple[type[Exception], ...]) -> Iterator[bytes]:
    """What `read` gives until its end.

    Raises:
        MediaUnavailableError: it fails with one of `failures`: what could be opened a moment ago is worth another try.
    """
    while True:
        try:
            chunk = read(_CHUNK)
        except failures as err:
            raise MediaUnavailableError(f"reading the source failed on the way: {type(err).__name__}") from err
        if not chunk:
            return
        yield chunk


def _why_refused(filesystem: Any, path: str, err: PermissionError) -> str:
    """The object store's code for a refusal.

    The client asks by HEAD first, whose answer has no body and is 403 whatever the reason: then one byte is asked for.
    """
    code = _store_code(err)
    if code != "403":
        return code
    try:
        filesystem.cat_file(path, start=0, end=1)
    except PermissionError as again:
        return _store_code(again)
    except Exception as other:  # the client's errors have no common base; the refusal is what counts
        return type(other).__name__
    return "refused once"


def _store_code(err: PermissionError) -> str:
    answer = getattr(err.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", "403"))


def locate(settings: Settings, video_id: str, *, source: str | None, tenant: str) -> str:
    """Where a video lies: its source, else by the media template.

    Where the template names the tenant, a tenant's files and objects are those of its own folder: they are opened with the service's
    rights. What another host serves is not, and stays open to whoever knows the URL; the template's own host is held to the folder.

    Raises:
        SourceNotAllowedError: the source is in nobody's or another tenant's folder, or no URL.
    """
    template = settings.media_template
    if not source:
        in_folder = template if tenant else template.replace("{tenant}/", "")
        return in_folder.format(video_id=video_id, tenant=tenant)
    before, named, _after = template.partition("{tenant}")
    if tenant and named:
        kind, host, path = _place(source)
        own_kind, own_host, own_path = _place(f"{before}{tenant}/")
        is_elsewhere = kind == "http" and (own_kind, own_host) != (kind, host)
        is_own = (kind, host) == (own_kind, own_host) and path.startswith(own_path) and ".." not in path.split("/")
        if not is_elsewhere and not is_own:
            raise SourceNotAllowedError("the source is outside this tenant's folder of VERIFRAME_MEDIA_TEMPLATE: name a file in it")
    return source


def _place(location: str) -> tuple[str, str, str]:
    """(kind, host or bucket, path) of a location; http and https are one kind, whatever the port."""
    if location[:5].lower() == "s3://":
        bucket, _, key = location[5:].partition("/")
        return "s3", bucket, key
    parts = split_location(location)
    scheme = parts.scheme.lower()
    if scheme in ("http", "https"):
        return "http", (parts.hostname or "").rstrip("."), unquote(parts.path)
    return scheme or "file", "", unquote(parts.path) if scheme else location


def split_location(location: str) -> SplitResult:
    """The parts of a path or URL.

    Raises:
        SourceNotAllowedError: it looks like a URL and is none, as `http://[::1`.
    """
    try:
        return urlsplit(location)
    except ValueError as err:
        raise SourceNotAllowedError("the source is no URL: its host cannot be one") from err  # without the reason, which quotes it


def open_beneath(root: Path, relative: PurePosixPath) -> int:
    """Open a file below `root` without following any symbolic link on the way; gives a file descriptor.

    Raises:
        OSError: as `os.open`; ELOOP or ENOTDIR when a component is a link, ESTALE when the root itself cannot be opened.
        ValueError: a component holds what no file name can.
    """
    try:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:  # the number is about the volume: it must not read as that of a file
        raise OSError(errno.ESTALE, f"the media root cannot be opened: {err.strerror}") from err
    try:
        for part in relative.parts[:-1]:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = deeper
        # O_NONBLOCK: opening a named pipe must not wait for a writer
        return os.open(relative.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)


def unlinked_file(folder: Path) -> BinaryIO:
    """An open temporary file without a name: the kernel frees it when the last descriptor closes, however we die."""
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    except OSError:  # a file system without O_TMPFILE
        return tempfile.TemporaryFile(dir=folder)
