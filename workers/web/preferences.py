"""What one reviewer wants to see and hear: blur, grey, mute, keys, theme. A plain cookie, read strictly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import Response

from .session import PREFIX

COOKIE: Final = "veriframe_view"
THEMES: Final = ("auto", "light", "dark")
_YEAR: Final = 365 * 86400


@dataclass(frozen=True, slots=True)
class Preferences:
    """One reviewer's preferences."""

    blur: bool = False
    """Videos and pictures are blurred until one key shows them: artefacts vanish under blur."""
    grey: bool = False
    mute: bool = True
    keys: bool = True
    """Single letters are shortcuts; some assistive software needs them off."""
    theme: str = "auto"

    @classmethod
    def of(cls, request: Request) -> Preferences:
        """Read the cookie; whatever makes no sense in it is the default."""
        given = dict(parse_qsl(request.cookies.get(COOKIE, "")[:200]))
        flags = {name: given[name] == "1" for name in ("blur", "grey", "mute", "keys") if given.get(name) in ("0", "1")}
        theme = given.get("theme", "auto")
        return cls(**flags, theme=theme if theme in THEMES else "auto")

    def write(self, response: Response) -> None:
        """Write the cookie."""
        values = {name: str(int(value)) if isinstance(value, bool) else value for name, value in asdict(self).items()}
        response.set_cookie(COOKIE, urlencode(values), max_age=_YEAR, path=PREFIX, samesite="lax", httponly=True)
