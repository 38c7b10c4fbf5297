"""Decoding on a card: what is certain without one. Off, nothing changes; on, the same frames come, by whatever way."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel

from builders import moving_pictures, write_clip
from detect_core.errors import HardwareDecodeError, OptionError
from detect_core.options import DecodeLimits, HardwareDecode, ScreeningOptions
from detect_core.structs import Frame
from detect_core.video import picture, sandbox, stream
from detect_core.video.decode import DecodeSession
from detect_core.video.foreign_file import ForeignFile
from detect_core.video.hardware import Device, as_in_software, decode_with_fallback, driver_files
from detect_core.video.index import index_packets
from detect_core.video.probe import open_container
from detect_core.video.sandbox_probe import ACTS
from detect_core.video.stream import DecodeTally, decode_wanted

CLIPS: dict[str, dict[str, Any]] = {
    "h264": {"options": {"bf": "3", "b-pyramid": "normal", "g": "20"}},
    "h264-444": {"options": {"bf": "2", "g": "20"}, "pixel_format": "yuv444p"},
    "hevc-10-bit": {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "keyint=20:log-level=none"}},
    "vp9": {"codec": "libvpx-vp9", "suffix": ".webm", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2", "g": "15"}},
}
LIMITS = DecodeLimits()
STAND_IN = Path(__file__).with_name("stand_in_driver.py")
USUAL_FILTER = {
    "x86_64": "90788482ad269a3281a08aa06355dac55af027ba8bf899f72c202a71a7a6d378",
    "aarch64": "5a4dc490bb16416f99bce908774a133a93642e32cd1a6b575e65448b40bf0ba6",
}
"""SHA-256 of the seccomp filter as it was before there was hardware decoding."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("clips"), {}
    for name, given in CLIPS.items():
        recipe = dict(given)
        made[name] = folder / f"{name}{recipe.pop('suffix', '.mp4')}"
        write_clip(made[name], moving_pictures(40), **recipe)
    return made


def decoded(clip: Path, kind: HardwareDecode) -> tuple[list[Frame], DecodeSession]:
    options = ScreeningOptions(num_frames=6, decode=DecodeLimits(hardware_decode=kind))
    with clip.open("rb") as file, DecodeSession(file, options=options) as session:
        session.open()
        return session.next_frames(6)[0], session


def test_an_unknown_kind_is_refused():
    with pytest.raises(OptionError, match="off, cuda"):
        DecodeLimits(hardware_decode="vulkan")  # type: ignore[arg-type]


@pytest.mark.parametrize("machine", USUAL_FILTER)
def test_off_the_filter_is_the_same_to_the_byte(machine, monkeypatch):
    monkeypatch.setattr(sandbox.platform, "machine", lambda: machine)
    usual, beside_driver = sandbox._program(), sandbox._program(for_driver=True)
    assert hashlib.sha256(usual).hexdigest() == USUAL_FILTER[machine]
    assert len(beside_driver) > len(usual)


def test_off_landlock_lets_no_path_through():
    assert sandbox._driver_rules(()) == []
    assert sandbox._driver_rules(("/dev/null",))


@pytest.mark.parametrize("name", CLIPS)
def test_on_the_same_frames_come(name, clips):
    plain, _ = decoded(clips[name], "off")
    frames, session = decoded(clips[name], "cuda")
    assert [(f.pts_seconds, f.scale) for f in frames] == [(f.pts_seconds, f.scale) for f in plain]
    for frame, expected in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(frame.image_hwc, expected.image_hwc)
    if driver_files():
        assert session.hardware != ""
    else:
        assert session.hardware == "unavailable"


def test_without_a_card_the_sandbox_is_the_usual_one(clips):
    if driver_files():
        pytest.skip("this machine has a card")
    _, off = decoded(clips["h264"], "off")
    _, on = decoded(clips["h264"], "cuda")
    assert on.sandbox == off.sandbox
    assert off.sandbox["opened_for"] == ""


@pytest.mark.parametrize("name", ["h264", "hevc-10-bit", "vp9"])
def test_a_card_decodes_exactly(name, clips):
    if not driver_files():
        pytest.skip("this machine has no card")
    _, session = decoded(clips[name], "cuda")
    assert session.hardware == "device"
    assert session.sandbox["level"] == "partial"


# --- the weaker sandbox, beside a stand-in for a driver


@pytest.fixture(scope="module", params=["works", "fails"])
def stand_in(request: pytest.FixtureRequest) -> tuple[bool, dict[str, str], dict[str, Any]]:
    command = [sys.executable, "-I", str(STAND_IN), request.param]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    report = json.loads(done.stdout)
    if not (report["state"]["seccomp"] and report["state"]["landlock_abi"]):
        pytest.skip("this kernel has no seccomp or no Landlock")
    return request.param == "works", json.loads(done.stderr), report


def test_the_weaker_sandbox_says_so(stand_in):
    works, _, report = stand_in
    assert report["state"]["level"] == ("partial" if works else "full")
    assert (report["state"]["opened_for"] != "") is works
    assert report["no_device"] == ("" if works else "the stand-in fails")


def test_it_refuses_every_act_all_the_same(stand_in):
    assert stand_in[2]["refused"] == dict.fromkeys(ACTS, True)


def test_a_driver_gets_its_files_requests_and_threads_and_no_more(stand_in):
    works, found, _ = stand_in
    assert found.pop("reads libraries while loading") == found.pop("lists what machine it is on") == "done"
    given = ("its thread makes a pipe", "opens its device file", "starts a thread")
    assert all((found.pop(act) == "done") is works for act in given)
    assert found.pop("asks the driver") == ("OSError" if works else "PermissionError")  # /dev/null knows no such request
    assert set(found.values()) == {"PermissionError"}


# --- pictures of a card, played by software that hands them over in the card's formats


@pytest.mark.parametrize(("plain", "downloaded"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
@pytest.mark.parametrize("colour_range", [0, 1, 2])
def test_a_downloaded_picture_becomes_what_software_gives(plain, downloaded, colour_range):
    source = av.VideoFrame.from_ndarray(moving_pictures(1)[0], format="rgb24").reformat(format=plain)
    source.pts, source.color_range, source.colorspace = 7, colour_range, 1
    found = as_in_software(source.reformat(format=downloaded))
    assert (found.format.name, found.pts, found.color_range, found.colorspace) == (plain, 7, colour_range, 1)
    np.testing.assert_array_equal(found.to_ndarray(), source.to_ndarray())


@pytest.mark.parametrize(("width", "name"), [(64, "p016le"), (63, "nv12"), (64, "nv16")])
def test_a_picture_without_an_exact_counterpart_is_doubted(width, name):
    with pytest.raises(HardwareDecodeError, match=name):
        as_in_software(av.VideoFrame(width, 64, name))


@dataclass
class Card:
    """Plays a card in `open_container`: decodes in software, hands nv12 over, and fails when told to."""

    fails_at: int | None = None
    drops_at: int | None = None
    packets: int = 0

    def open(self, file: ForeignFile, *, limits: DecodeLimits, hwaccel: HWAccel | None = None) -> Any:
        container, video, warnings = open_container(file, limits=limits)
        if hwaccel is None:
            return container, video, warnings
        context = video.codec_context
        context.thread_count = 1  # concealed damage looks otherwise when slices are decoded side by side

        def decode(packet: Any) -> list[av.VideoFrame]:
            self.packets += 1
            if self.packets == self.fails_at:
                raise av.error.ExternalError(1, "the card fell off the bus")
            if self.packets == self.drops_at:
                raise RuntimeError("nobody expected this")
            return [frame.reformat(format="nv12") for frame in context.decode(packet)]

        stand_in = SimpleNamespace(decode=decode, flush_buffers=context.flush_buffers, is_hwaccel=True)
        return container, SimpleNamespace(codec_context=stand_in, time_base=video.time_base), warnings


def both_ways(clip: Path, card: Card, monkeypatch: pytest.MonkeyPatch, *, codec: str = "h264") -> tuple[list[Any], list[Any], DecodeTally]:
    """(seconds, crop) of every frame from software, and from the card with software behind it."""
    monkeypatch.setattr(stream, "open_container", card.open)
    tally, ways = DecodeTally(), []
    with clip.open("rb") as raw:
        file = ForeignFile(raw.fileno())
        for on_card in (False, True):
            opened = open_container(file, limits=LIMITS)[:2]
            index = index_packets(*opened, limits=LIMITS)

            def decode(hwaccel: HWAccel | None, opened: Any = opened, index: Any = index, on_card: bool = on_card) -> Iterator[Any]:
                kept = tally if on_card else DecodeTally()
                return decode_wanted(file, opened, index, num_frames=6, limits=LIMITS, tally=kept, hwaccel=hwaccel)

            wish = HWAccel("qsv")
            device = Device(wish=wish, held=wish, clip=b"")
            frames = decode_with_fallback(decode, device, codec=codec, tally=tally) if on_card else decode(None)
            ways.append([(seconds, frame.format.name, cut(frame)) for seconds, frame in frames])
    return ways[0], ways[1], tally


def cut(frame: av.VideoFrame) -> bytes:
    return picture.cut_squares(frame, centre_xy=(100, 90), squares=[picture.Square(70, 64)])[0][0].tobytes()


@pytest.mark.parametrize(
    ("card", "outcome"),
    [(Card(), "device"), (Card(fails_at=1), "failed"), (Card(fails_at=17), "failed"), (Card(drops_at=17), "failed")],
    ids=["exact", "fails-at-once", "fails-midway", "falls-over"],
)
def test_every_frame_comes_once_whatever_the_card_does(card, outcome, clips, monkeypatch):
    plain, found, tally = both_ways(clips["h264"], card, monkeypatch)
    assert len(plain) == 6
    assert found == plain
    assert (tally.hardware, tally.warnings) == (outcome, set())
    assert card.packets > 0


def test_a_codec_whose_rounding_is_free_stays_in_software(clips, monkeypatch):
    card = Card()
    plain, found, tally = both_ways(clips["mpeg4"], card, monkeypatch, codec="mpeg4")
    assert found == plain
    assert (tally.hardware, card.packets) == ("unsupported", 0)


def test_damage_is_named_by_software(clips, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.mp4"
    content = bytearray(clips["h264"].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    damaged.write_bytes(content)
    plain, found, tally = both_ways(damaged, Card(), monkeypatch)
    assert found == plain
    assert tally.hardware == "failed"
    assert "DECODE_ERRORS" in tally.warnings
