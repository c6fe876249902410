"""What a user is told of a key that was chosen for a task while it stands for another one."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import dask

from treadle import config
from treadle.exceptions import RedefinedKeyError, RedefinedKeyWarning
from treadle.utils.keys import Key

logger = logging.getLogger("treadle.client")

_OURS: Final = tuple([str(Path(module.__file__ or "").parent) for module in (config, dask)])


def _text(keys: Sequence[Key]) -> str:
    others = f" (and {len(keys) - 1} other keys)" if len(keys) > 1 else ""
    return (
        f"the key {keys[0]!r}{others} stands for another task already, whose result you get. Choose another key, or release what holds "
        "that one first: futures of any client, published datasets, and tasks that need it."
    )


def tell_redefined(keys: Sequence[Key]) -> None:
    """Before anything is sent: warn at the line of the user's program, or raise RedefinedKeyError, as the config says."""
    if config.redefined_keys_are_errors():
        raise RedefinedKeyError(_text(keys))
    warnings.warn(_text(keys), RedefinedKeyWarning, stacklevel=_level_of_user())


def hear_redefined(keys: Sequence[Key]) -> None:
    """The scheduler says so, of what was sent; of what was released meanwhile it does not matter. Never raises."""
    if not keys:
        return
    try:
        warnings.warn(_text(keys), RedefinedKeyWarning, stacklevel=1)
    except Warning as warning:  # the user's filter makes errors of warnings
        logger.warning("%s", warning)


def _level_of_user() -> int:
    """How many frames up the user's program is, for a warning from the caller."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
        level += 1
    return level
