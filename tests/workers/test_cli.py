"""The command line: exit statuses, one sentence per refusal, one JSON object per file."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detect_core.errors import DecodeTimeoutError, NotMediaError
from detect_core.structs import Sampling, Verdict, VideoInfo
from workers.cli import app
from workers.messages import VerdictBody
from workers.scan import EXIT_FAILED, files_of, run_scan, table_cells

ROOT = Path(__file__).parents[2]


class ByName:
    """A screener whose answer is in the file."""

    def __init__(self) -> None:
        self.closed, self.calls = False, 0

    def screen(self, file, **_options):
        self.calls += 1
        content = file.read()
        if content == b"broken":
            raise NotMediaError("these bytes are no video: send an mp4, mkv or webm")
        if content == b"slow":
            raise DecodeTimeoutError("too slow")
        return Verdict(
            verdict="inconclusive",
            p_fake=None,
            reason_codes=("NO_FACE",),
            sentence="no face was found",
            video=VideoInfo(64, 64, 1.0, 25, 1, "h264", "mp4", "yuv420p", 0),
            sampling=Sampling("uniform", 8, 8, 0, (0.0,)),
        )

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def files(tmp_path):
    paths = {}
    for name in ("good", "broken", "slow"):
        paths[name] = tmp_path / f"{name}.mp4"
        paths[name].write_bytes(name.encode())
    return paths


def test_json_is_one_object_per_file_and_a_failure_does_not_stop_the_rest(files, capsys):
    screener = ByName()
    status = run_scan([files["broken"], files["good"]], as_json=True, load=lambda: screener)
    broken, good = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == EXIT_FAILED
    assert (broken["state"], broken["error"]["code"], broken["score"]) == ("failed", "NOT_MEDIA", None)
    assert (good["state"], good["verdict"], good["score"]["p_fake"], good["reason_codes"]) == (
        "complete",
        "inconclusive",
        None,
        ["NO_FACE"],
    )
    assert screener.closed


def test_inconclusive_counts_as_judged(files):
    assert run_scan([files["good"]], as_json=True, load=ByName) == 0


def test_a_timeout_is_tried_once_more(files):
    screener = ByName()
    assert run_scan([files["slow"]], as_json=True, load=lambda: screener) == EXIT_FAILED
    assert screener.calls == 2


def test_a_missing_file_is_a_failure_with_a_sentence(tmp_path, capsys):
    assert run_scan([tmp_path / "nobody.mp4"], as_json=True, load=ByName) == EXIT_FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "FETCH_NOT_FOUND"


def test_a_line_names_its_file_by_path_and_hash_whatever_bytes_the_name_holds(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (
        (b"a/clip.mp4", b"good"),
        (b"b/clip.mp4", b"broken"),
        (b"b/a-\xe9.mp4", b"broken"),
        ("b/é.mp4".encode(), b"good"),
    ):
        path = Path(os.fsdecode(name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    gone = Path(os.fsdecode(b"b/gone-\xe9.mp4"))
    assert run_scan([*files_of([Path("a"), Path("b")]), gone], as_json=True, load=ByName) == EXIT_FAILED
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    good, broken = (hashlib.sha256(content).hexdigest() for content in (b"good", b"broken"))
    assert {line["video_id"]: line["content_sha256"] for line in lines} == {
        "a/clip.mp4": good,
        r"b/a-\xe9.mp4": broken,
        "b/clip.mp4": broken,
        "b/é.mp4": good,
        r"b/gone-\xe9.mp4": None,
    }
    assert r"gone-\xe9.mp4" in lines[-1]["error"]["message"]
    run_scan(files_of([Path("a"), Path("b")]), as_json=False, load=ByName)
    shown = capsys.readouterr().out
    assert "a/clip.mp4" in shown
    assert r"b/a-\xe9.mp4" in shown


def test_the_table_uses_words_for_people(files, capsys):
    run_scan([files["good"], files["broken"]], as_json=False, load=ByName)
    shown = capsys.readouterr().out
    assert str(files["good"].parent) not in shown, "a table has little room"
    assert "cannot tell" in shown
    assert "failed" in shown


def test_names_and_messages_are_shown_as_they_are(tmp_path, capsys):
    path = tmp_path / "a [dQw4].mp4"
    path.write_bytes(b"broken")
    run_scan([path], as_json=False, load=ByName)
    assert "a [dQw4].mp4" in capsys.readouterr().out
    done = veriframe("scan", "--bundles", str(tmp_path / "[/x] :warning:"), str(path))
    assert done.returncode == 1
    assert "[/x] :warning:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_console_reads_markup():
    sources = [path for package in ("workers", "training") for path in (ROOT / package).rglob("*.py")]
    calls = [
        ast.unparse(node)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    ]
    assert calls
    assert [call for call in calls if "markup=False, emoji=False" not in call] == []


def test_a_path_that_cannot_be_used_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, tried in (
        (("evidence", "--check", str(tmp_path / "nope.zip")), "cannot read the case file"),
        (("up", "--state-dir", str(tmp_path / "file" / "state")), "cannot make the state folder"),
    ):
        done = veriframe(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"FILE_ACCESS: {tried} {tmp_path}" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_table_says_that_a_fake_may_hide_in_another_stream():
    facts = {"video_id": "v", "state": "complete", "verdict": "authentic", "sentence": "No manipulation found.", "reason_codes": []}
    whole = VerdictBody.model_construct(**facts, warnings=["VFR"], error=None, score=None, tracks=[], timing_ms={})
    partly = whole.model_copy(update={"warnings": ["MULTIPLE_VIDEO_STREAMS"]})
    assert table_cells(whole)[3] == "No manipulation found."
    assert table_cells(partly)[3] == "No manipulation found. Its other video streams were not judged."


def veriframe(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "workers", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_wrong_usage_exits_2():
    assert veriframe("scan").returncode == 2
    assert veriframe("fly").returncode == 2


def test_an_impossible_setting_is_one_sentence(tmp_path):
    done = veriframe("verdict", "a", VERIFRAME_CONCURRENCY="none", VERIFRAME_STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "INVALID_SETTINGS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = veriframe("up", "--port", str(taken.getsockname()[1]), VERIFRAME_STATE_DIR=str(tmp_path))
    assert (done.returncode, "PORT_IN_USE" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_asking_before_anything_was_set_up_says_what_to_do(tmp_path):
    done = veriframe("verdict", "a", VERIFRAME_STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "veriframe migrate" in done.stderr
    assert veriframe("migrate", VERIFRAME_STATE_DIR=str(tmp_path)).returncode == 0
    done = veriframe("verdict", "a", VERIFRAME_STATE_DIR=str(tmp_path))
    assert "UNKNOWN_VIDEO" in done.stderr


def test_commands_for_people_do_not_load_the_model_stack():
    code = "import sys, workers.cli, workers.services, workers.web.app, workers.ingest, workers.janitor; print([m for m in ('torch', 'celery', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_stands_for_the_videos_in_and_below_it_and_a_named_file_for_itself(tmp_path):
    for name in ("b.MP4", "a.webm", "notes.txt", "more/c.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert [p.name for p in files_of([tmp_path, tmp_path / "notes.txt", tmp_path / "gone.mp4"])] == [
        "a.webm", "b.MP4", "c.mov", "notes.txt", "gone.mp4",
    ]  # fmt: skip


def test_a_folder_without_a_video_is_a_wrong_use(tmp_path):
    answer = CliRunner().invoke(app, ["scan", str(tmp_path)])

    assert answer.exit_code == 2
    assert "no video" in " ".join(answer.output.replace("│", " ").split())
