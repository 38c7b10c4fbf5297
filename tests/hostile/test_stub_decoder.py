"""A decoder that was taken over by its file: it hangs, floods, lies, forks, writes or dies; each ends typed, in time, alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from detect_core.errors import DecodeTimeoutError
from detect_core.video.decode import DecodeSession
from detect_core.video.sandbox_probe import probe_sandbox
from hostile.stubs import ENDS, PATIENCE_SECONDS, REACHES, World, open_world, try_reach, try_stub

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module", params=[("off", 1), ("off", 2), ("cuda", 1)], ids=["usual", "threads", "cuda"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if not probe_sandbox().holds:
        pytest.skip("the decode sandbox does not hold on this machine")
    hardware_decode, threads = request.param
    with open_world(hardware_decode, threads=threads) as opened:
        yield opened


def test_the_sandbox_is_the_one_that_was_asked_for(world):
    with (
        world.clip.open("rb") as file,
        DecodeSession(file, options=world.options(), nursery=world.nursery, threads=world.threads) as session,
    ):
        session.open()
        session.next_frames(4)
    is_off = world.hardware_decode == "off"
    assert session.hardware == ("" if is_off else "unsupported")
    assert (session.sandbox["opened_for"] == "") is is_off
    assert session.sandbox["threads"] is (world.threads > 1)
    assert is_off or session.sandbox["level"] == "partial"


@pytest.mark.parametrize("kind", ENDS)
def test_a_decoder_that_turns_bad_ends_typed_and_alone(world, kind):
    assert try_stub(world, kind) is None


@pytest.mark.parametrize("kind", REACHES)
def test_a_decoder_that_reaches_out_finds_nothing(world, kind):
    assert try_reach(world, kind) is None


def test_no_child_is_left(world):
    with world.stub("hang").open("rb") as file:
        session = DecodeSession(file, options=world.options(wall_seconds=0.5), nursery=world.nursery)
        with pytest.raises(DecodeTimeoutError):
            session.open()
        session.close()
    assert session._child.dead.wait(PATIENCE_SECONDS)
    assert not Path(f"/proc/{session._child.pid}").exists()
