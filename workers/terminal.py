"""What the commands share at the terminal: consoles that print text as it is, and one sentence for a path that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from .errors import FileAccessError, WorkerError


def make_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console without rich's markup: `Interview [dQw4w9WgXcQ].mp4` is a name. Styles are given as `Text`."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False)


@contextmanager
def using_path(path: Path, *, doing: str) -> Iterator[None]:
    """Turn what the system says about a path that somebody named into a sentence.

    Args:
        path: as it was given.
        doing: what is tried, e.g. `read the case file`.

    Raises:
        FileAccessError: the path cannot be used like this.
    """
    try:
        yield
    except WorkerError:
        raise
    except OSError as err:
        why = err.strerror or type(err).__name__
        raise FileAccessError(f"cannot {doing} {path} ({why}): check the path, its permissions and the room on its disk") from err
