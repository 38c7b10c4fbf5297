"""The words that people read: verdicts, reason codes, warnings, readings and decisions in plain English."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

WORDS: Final = {
    "manipulated": "likely manipulated",
    "suspicious": "suspicious",
    "inconclusive": "cannot tell",
    "authentic": "no manipulation found",
}
SIGNS: Final = {"manipulated": "▲", "suspicious": "◆", "inconclusive": "?", "authentic": "✓"}
"""A shape beside every colour: nothing is told by colour alone."""
DECISIONS: Final = {"fake": "manipulated", "clean": "not manipulated", "unsure": "unsure", "closed": "closed without a label"}
READINGS: Final = {"first": "first look", "second": "second reader", "settle": "readers differ", "appeal": "appeal"}
HEAT_KINDS: Final = {
    "crop": "the face as it was scored",
    "grad_cam": "what raised the score",
    "blend_mask": "where it sees a blended edge",
    "spectrum": "frequencies",
}
KINDS: Final = {
    "decided": "decided",
    "undone": "took the decision back",
    "noted": "wrote a note",
    "claimed": "opened it",
    "released": "let it go",
    "skipped": "skipped it",
    "second_asked": "asked for a second reader",
    "appealed": "appealed",
    "replaced": "put a newer verdict in its place",
    "carried": "said of an earlier verdict",
}
REASON_TAGS: Final = (
    ("mouth", "mouth or teeth do not follow the speech"),
    ("edge", "an edge around the face"),
    ("skin", "skin, light or colour does not fit"),
    ("flicker", "the face flickers or jumps"),
    ("eyes", "eyes or gaze are wrong"),
    ("filter", "a harmless filter or make-up"),
    ("quality", "only bad quality"),
    ("context", "known from its context"),
)

_REASONS: Final = {
    "SCORE_ABOVE_T_FAKE": "The highest face scores at or above the line for “likely manipulated”.",
    "SCORE_IN_BAND": "The highest face scores between the two lines: a person should look.",
    "NO_FACE": "No face was found, and only faces are judged.",
    "FACE_TOO_SMALL": "Faces were found, but all are too small or uncertain. A larger rendition may allow a verdict.",
    "TOO_FEW_FRAMES": "Too few frames show a face that can be followed. A longer clip may allow a verdict.",
    "LOW_EVIDENCE": "The faces are too small or too blurred to judge.",
    "CROWD_UNCERTAIN": "One face scores high, but among this many faces one such score can be chance. Look at that face.",
    "DETECTORS_DISAGREE": "The detectors contradict each other on the same face.",
    "UNSTABLE_UNDER_RECOMPRESSION": "The suspicion goes away when the same pictures are compressed again.",
    "HEAVY_COMPRESSION": "The video is compressed too hard to judge. A better rendition may allow a verdict.",
    "FACES_NOT_FOLLOWED": "Nothing was found, but many faces are seen too briefly to be judged.",
    "UNSEEN_STRETCH": "Nothing was found, but a stretch of the video could not be looked at.",
    "PARTIAL_DECODE": "Nothing was found, but not every wanted frame could be decoded.",
    "HIDDEN_PICTURE_AREA": "Nothing was found, but players show another part of the picture than the one that was looked at.",
    "UNUSUAL_PIXEL_ASPECT": "Nothing was found, but the file states pixels too long to be shown, and the picture was looked at as it is stored.",
    "ALPHA_IGNORED": "Nothing was found, but the picture has transparent parts, behind which players may show something else.",
    "OUT_OF_DOMAIN": "The face looks unlike all faces that the detectors were measured on.",
}
_WARNINGS: Final = {
    "VFR": "The frame rate varies.",
    "PARTIAL_DECODE": "Not every wanted frame could be decoded.",
    "UNSEEN_STRETCH": "The times in the file do not allow to look at a part of it.",
    "FACES_LEFT_OUT": "More faces than one video may have were in the picture; the largest were judged.",
    "DECODE_ERRORS": "Some frames were damaged.",
    "DURATION_MISMATCH": "The file says another length than its pictures have.",
    "ATTACHED_PICTURE": "A picture is attached to the file (a cover); it was not judged.",
    "MULTIPLE_VIDEO_STREAMS": "The file holds several video streams; the main one was judged.",
    "ROTATED": "The video is stored rotated or mirrored; boxes refer to the picture as players show it.",
    "PICTURE_CHANGES": "The size or direction of the picture changes within the video; boxes refer to the picture of their own moment.",
    "LOOKS_FAILED": "Further looks at this undecided video failed; the verdict is that of the first whole look.",
    "HIDDEN_PICTURE_AREA": "The file tells players to show a part of the picture; the whole of it was judged.",
    "ALPHA_IGNORED": "The picture has transparent parts; it was judged as if it had none.",
    "EDIT_LIST": "The file tells players to leave out more than a second of its pictures; those were not judged.",
    "UNUSUAL_PIXEL_ASPECT": "The file states pixels too long to be shown; they were taken for square.",
    "NON_SQUARE_PIXELS": "The video's pixels are not square; boxes refer to the picture as players show it.",
}


def reason(code: str) -> str:
    """A reason code as a sentence."""
    return _REASONS.get(code, _spelled(code))


def warning(code: str) -> str:
    """A warning as a sentence."""
    return _WARNINGS.get(code, _spelled(code))


def _spelled(code: str) -> str:
    return code.replace("_", " ").capitalize() + "."


def age(seconds: float) -> str:
    """How long ago, in the two largest units."""
    minutes = int(seconds // 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else "just now"


def moment(seconds: float) -> str:
    """A place in a video: `4.20 s`, or `1:04.20` from a minute on."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def when(epoch_seconds: float) -> str:
    """A time of day, UTC."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def bundle_name(bundle_set: str | None) -> tuple[str, str]:
    """Name and short hash of a bundle set `name@hash`."""
    name, _, digest = (bundle_set or "none").partition("@")
    return name, re.sub(r"[^0-9a-zA-Z]", "", digest)[:12]


def number(value: float | None, digits: int = 2) -> str:
    """A score, or a dash when none was measured."""
    return f"{value:.{digits}f}" if value is not None else "–"
