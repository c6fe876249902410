"""When the core fails, which is a fault of treadle's: what it failed on is set aside, and whoever sent that hears the story. No I/O."""

from __future__ import annotations

import hashlib
import traceback
from typing import Any, Final

from treadle.exceptions import CoreFailedError
from treadle.messages.client_scheduler import (
    AttachKeys,
    CancelKeys,
    ClientRefused,
    ConfirmKeys,
    DefineFunctions,
    FireAndForget,
    ForgetFunctions,
    KeysErred,
    KeysScattered,
    PublishData,
    ReattachKeys,
    ReleaseKeys,
    RetryKeys,
    SubmitTasks,
    UnpublishData,
)
from treadle.messages.codec import encode
from treadle.scheduler.sessions import messages_of
from treadle.scheduler.transitions.machine import Event, Transitions
from treadle.scheduler.transitions.rules.erred import own_error

#: What a client may say again and again without it, and be understood.
_MAY_BE_SET_ASIDE: Final = frozenset(
    [
        AttachKeys,
        CancelKeys,
        ConfirmKeys,
        DefineFunctions,
        FireAndForget,
        ForgetFunctions,
        KeysScattered,
        PublishData,
        ReattachKeys,
        ReleaseKeys,
        RetryKeys,
        SubmitTasks,
        UnpublishData,
    ]
)
#: Of these somebody waits for the keys.
_ABOUT_KEYS: Final = frozenset([AttachKeys, ConfirmKeys, KeysScattered, ReattachKeys, RetryKeys, SubmitTasks])
_STORY_LENGTH: Final = 20


class CoreFailure:
    """A turn in which the core failed. Made inside ``except``, while the state is as it was left.

    ``culprit``: the event that was being handled; None when it was what follows from all of them.
    """

    def __init__(self, core: Transitions, error: BaseException, events: list[Event]) -> None:
        self.events = events
        self.culprit: Event | None = events[core.at] if 0 <= core.at < len(events) else None
        self.story = _tell(core, error, self.culprit)


def _tell(core: Transitions, error: BaseException, culprit: Event | None) -> str:
    """What happened, for people."""
    lines = [f"{type(error).__name__}: {error}"]
    if culprit is not None:
        lines.append(f"while it handled {type(culprit.message).__name__} of session {culprit.session}")
        try:
            entries = core.story(*_keys_of(core, culprit.message))[-_STORY_LENGTH:]
            lines += [f"  {time:.3f} s: {key!r} {start} -> {finish} ({cause})" for key, start, finish, cause, time in entries]
        except Exception as failure:
            # What has failed may be in any state.
            lines.append(f"(its story cannot be told: {failure!r})")
    lines += traceback.format_exception(error)
    return "\n".join(line.rstrip() for line in lines)


def _keys_of(core: Transitions, message: Any) -> list[Any]:
    by_id = core.state.by_id
    return [task.key for id in getattr(message, "ids", ()) if (task := by_id.get(id)) is not None]


class SetAside:
    """What the core has failed on, of which it is told nothing any more, for as long as this process lives.

    A message is known by its sender's number and by what it says: clients say again, word for word, what was not acknowledged.
    """

    def __init__(self) -> None:
        #: What is set aside, and its story.
        self._stories: dict[bytes, str] = {}
        #: One of these it was: each is handled in a turn of its own when it comes again.
        self._suspects: set[bytes] = set()
        #: Ids of keys that have failed with a message.
        self._failed: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._stories or self._suspects or self._failed)

    def blame(self, failure: CoreFailure) -> str:
        """Whatever that turn has failed on does not come to the core once more. Returns what is done about it, for the log."""
        culprit = failure.culprit
        events = failure.events if culprit is None else [culprit]
        suspects = [event for event in events if type(event.message) in _MAY_BE_SET_ASIDE]
        if len(suspects) == 1:
            self._suspects.discard(_name(suspects[0]))
            self.add(suspects[0], failure.story)
            return f"{type(suspects[0].message).__name__} of session {suspects[0].session} is set aside"
        self._suspects.update(map(_name, suspects))
        if not suspects:
            return "no message of a client is to blame"
        return f"one of {len(suspects)} messages is to blame, and each is tried alone"

    def add(self, event: Event, story: str) -> None:
        self._stories[_name(event)] = story
        if type(event.message) in _ABOUT_KEYS:
            self._failed.update(dict.fromkeys(_wanted(event.message), story))

    def story_of(self, event: Event) -> str | None:
        """Why it is set aside, if it is."""
        return self._stories.get(_name(event)) if self._stories and type(event.message) in _MAY_BE_SET_ASIDE else None

    def is_suspect(self, event: Event) -> bool:
        return bool(self._suspects) and type(event.message) in _MAY_BE_SET_ASIDE and _name(event) in self._suspects

    def acquit(self, event: Event) -> None:
        """It was handled alone, and nothing happened."""
        self._suspects.discard(_name(event))

    def failed_among(self, message: ConfirmKeys) -> list[Any]:
        """Of the keys that a client says it wants, those that failed here are marked as failed; returns what it is to be told of them."""
        lost = [id for id in message.ids if id in self._failed]
        if not lost:
            return []
        message.ids = [id for id in message.ids if id not in self._failed]
        message.erred = [*message.erred, *lost]
        return [KeysErred(lost, own_error(_error(self._failed[lost[0]])), "")]


def replaced(event: Event, story: str) -> tuple[list[Event], list[Any]]:
    """What the core hears in place of a message that was set aside, and what its sender is told."""
    message = event.message
    if type(message) in _ABOUT_KEYS:
        wanted = _wanted(message)
        keys = getattr(message, "keys", None)
        blame = keys[0] if keys else ""
        told = [KeysErred(wanted, own_error(_error(story)), blame)] if wanted else []
        # Some may be known, of a client that comes back: it takes these for failed, too.
        return [Event(event.session, ReleaseKeys(wanted))], told
    if isinstance(message, (PublishData, UnpublishData)):
        return [], [ClientRefused(message.request, CoreFailedError.__name__, str(_error(story)))]
    return [], []


def _wanted(message: Any) -> list[int]:
    wanted = getattr(message, "wanted", None)
    return list(message.ids if wanted is None else wanted)


def _error(story: str) -> CoreFailedError:
    return CoreFailedError(
        f"The scheduler failed on this, has set it aside and has started over. This is a fault of treadle's: please report it.\n{story}"
    )


def _name(event: Event) -> bytes:
    digest = hashlib.blake2b(encode(messages_of([event])), digest_size=16)
    digest.update(event.session.to_bytes(8, "little", signed=True))
    return digest.digest()
