"""Nothing is downloaded at run time: loading every detector and judging a video opens no connection and asks no name server."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, socket, sys
asked = []
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request") or (
        event in ("socket.connect", "socket.sendto") and not isinstance(arguments[1], (str, bytes))
    ):
        asked.append(f"{event} {arguments[1:]}")
        raise OSError(f"the test forbids {event}")
sys.addaudithook(watch)
sys.path.insert(0, sys.argv[1])
import io
from builders import astronaut_pictures, write_clip
from detect_core.pipeline import Screener
from pathlib import Path
clip = Path(sys.argv[2])
write_clip(clip, astronaut_pictures(10))
screener = Screener.load()
with clip.open("rb") as file:
    verdict = screener.screen(file)
screener.close()
earlier = list(asked)
try:
    socket.create_connection(("127.0.0.1", 9))
except OSError as err:
    blocked = "forbids" in str(err)
print(json.dumps({"asked": earlier, "blocked": blocked, "verdict": verdict.verdict, "faces": verdict.sampling.num_faces}))
"""


def test_detectors_load_and_judge_without_a_network(tmp_path):
    arguments = [sys.executable, "-c", PROGRAM, __file__.rsplit("/", 2)[0], str(tmp_path / "clip.mp4")]
    done = subprocess.run(arguments, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["blocked"], "the watch does not work"
    assert found["asked"] == []
    assert found["faces"] > 0
