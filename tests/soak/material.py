"""The mix of a soak: short and long, small and large, few and many faces, and files that cannot be judged."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from workers.bench.clips import make_clip


@dataclass(frozen=True)
class Kind:
    """One kind of upload and its share of all."""

    name: str
    height_px: int
    seconds: float
    num_faces: int
    share: float
    broken: bool = False

    @property
    def hint(self) -> dict[str, float]:
        """What a producer would say about it."""
        return {
            "duration_seconds": self.seconds,
            "width": round(self.height_px * 16 / 9 / 2) * 2,
            "height": self.height_px,
            "num_faces": self.num_faces,
        }


MIX = (
    Kind("phone", 480, 4.0, 1, 0.50),
    Kind("two-people", 720, 6.0, 2, 0.25),
    Kind("long", 360, 30.0, 1, 0.10),
    Kind("crowd", 1080, 3.0, 6, 0.10),
    Kind("broken", 480, 4.0, 1, 0.05, broken=True),
)
SMALL_MIX = (Kind("phone", 360, 1.0, 1, 0.6), Kind("two-people", 360, 2.0, 2, 0.3), Kind("broken", 360, 1.0, 1, 0.1, broken=True))


class Material:
    """Encodes each kind once and hands out uploads: a new ID, the same bytes."""

    def __init__(self, folder: Path, mix: tuple[Kind, ...], rng: random.Random) -> None:
        self._media, self._mix, self._rng = folder, mix, rng
        self._made = 0
        clips = folder.parent / "clips"
        clips.mkdir()
        self._files: dict[str, Path] = {}
        for kind in mix:
            path = make_clip(clips, height_px=kind.height_px, seconds=kind.seconds, num_faces=kind.num_faces).path
            self._files[kind.name] = path.rename(clips / f"{kind.name}.mp4")
            if kind.broken:
                self._files[kind.name].write_bytes(self._files[kind.name].read_bytes()[:3000])

    @property
    def heaviest(self) -> Kind:
        """The kind that takes the most memory: pixels and faces."""
        return max(self._mix, key=lambda kind: (kind.height_px, kind.num_faces))

    def upload(self, kind: Kind | None = None) -> tuple[str, Kind]:
        """(video ID, kind) of a new file in the media folder; without a kind one is drawn from the mix."""
        kind = kind or self._rng.choices(self._mix, weights=[each.share for each in self._mix])[0]
        self._made += 1
        video_id = f"{kind.name}-{self._made:06d}"
        shutil.copy(self._files[kind.name], self._media / f"{video_id}.mp4")
        return video_id, kind

    def forget(self, video_id: str) -> None:
        """Delete the file of a video that ended: a soak of hours must not fill the disk."""
        (self._media / f"{video_id}.mp4").unlink(missing_ok=True)
