"""Anyone may upload anything: a verdict or a named reason, and the worker lives on."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.expectations import Expected, read_manifest
from hostile.mutate import make_bases, mutate
from hostile.sweep import DEADLINE_SECONDS, decode

CORPUS = Path(os.environ.get("VERIFRAME_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "hostile"
NUM_MUTATIONS = 500


def rows() -> list[Expected]:
    return read_manifest(CORPUS / "MANIFEST.tsv") if (CORPUS / "MANIFEST.tsv").is_file() else []


@pytest.mark.hostile
@pytest.mark.real
@pytest.mark.parametrize("expected", rows(), ids=lambda expected: expected.file)
def test_a_corpus_file_ends_as_the_manifest_says(expected: Expected) -> None:
    result = decode(CORPUS / "files" / expected.file)

    assert result.outcome in expected.outcomes, result.message
    if result.outcome == "verdict":
        assert expected.warnings <= result.warnings
        assert not expected.upright or result.upright
    assert result.seconds <= DEADLINE_SECONDS
    assert result.peak_rss_bytes <= 1_000_000_000


@pytest.mark.hostile
def test_damaged_clips_of_every_kind_end_typed_and_in_time(tmp_path: Path) -> None:
    bases = make_bases(tmp_path)
    payloads = [(base.name, base.read_bytes()) for base in bases]
    bad = []
    for seed in range(NUM_MUTATIONS):
        name, payload = payloads[seed % len(payloads)]
        path = tmp_path / f"mutation-{seed}"
        path.write_bytes(mutate(payload, seed=seed))
        result = decode(path, name=f"{name} seed {seed}")
        path.unlink()
        if result.outcome.startswith("UNTYPED") or result.outcome == "DECODE_TIMEOUT" or result.peak_rss_bytes > 1_000_000_000:
            bad.append(result)
    assert bad == []


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port that counts who calls."""
    calls: list[object] = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                calls.append(server.accept()[1])
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    yield server.getsockname()[1], calls
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.hostile
def test_scripts_that_name_files_and_hosts_reach_neither(tmp_path: Path, listener: tuple[int, list[object]]) -> None:
    port, calls = listener
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(b"secret")
    os.utime(canary, (1, 1))
    url, path = f"http://127.0.0.1:{port}/x.mp4", canary.as_uri()
    scripts = {
        "hls": f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{url}\n#EXTINF:10.0,\n{path}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{canary}'\nfile '{url}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "dash": f"<?xml version='1.0'?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>",
        "svg": f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>",
        "avi-with-playlist": "RIFF\xff\xff\x00\x00AVI LIST\x10\x00\x00\x00movi00tx\x40\x00\x00\x00GAB2\x00\x02\x00" + f"#EXTM3U\n{path}\n",
    }
    for name, text in scripts.items():
        file = tmp_path / f"{name}.mp4"
        file.write_text(text, encoding="latin-1")
        assert decode(file).outcome in {"FORMAT_NOT_ALLOWED", "NOT_MEDIA", "NO_VIDEO_STREAM", "DECODE_ERROR", "CORRUPT_CONTAINER"}, name
    assert calls == []
    assert canary.stat().st_atime == 1
