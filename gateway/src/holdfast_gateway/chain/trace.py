"""What a stream has produced so far, to go on from: token ids, and how much of them was seen."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A key with its quotes bare cannot stand inside a JSON string.
_IDS = b'"token_ids":['
_PROMPT_IDS = b'"prompt_token_ids":['
_CHAT_TEXT = b'"delta":{"content":'
_NO_CHAT_TEXT = b'"content":""'
_TEXT = b'"text":"'
_NO_TEXT = b'"text":""'
_ROLE = b'"delta":{"role":'
_NO_DELTA = b'"delta":{}'
_UNFINISHED = b'"finish_reason":null'
_LONGEST_UNSURE = 64


@dataclass(frozen=True)
class Point:
    """Where to go on: after so many tokens, and the text since then that the client has already."""

    tokens: int
    known_text: str


class Trace:
    """The tokens of one choice, kept as vLLM's return_token_ids tells them.

    A point to go on from is one where the text of all tokens is whole. Text that comes with a
    single token is: vLLM withholds a character whose bytes are not all there. Where several tokens
    came in one event the last may be such a half, so that a greedy stream goes on from an earlier
    point, and what it says again is compared. `held` characters are withheld in front of a stop
    string, `reach` is how far back one may begin.
    """

    def __init__(self, *, held: int = 0, reach: int = 0, greedy: bool = False) -> None:
        self._held = held
        self._reach = reach
        self._greedy = greedy
        self._prompt = b""
        self._ids = bytearray()
        self._sure = 0
        self._unsure: deque[tuple[int, bool, bytes]] = deque()
        self._forgot = False
        self.exact = True
        """Whether all that was generated is known. Set to False, it cannot be gone on from."""
        self.prompt_tokens = 0
        self.tokens = 0
        self.finished = False
        self.head: dict[str, Any] = {}
        """Id, object, created and model of the stream, as its first event says them."""

    def take(self, event: bytes, usage: Mapping[str, object]) -> tuple[bytes, bool]:
        """Read an event; return it without ids, and whether it then says anything.

        Ids become null, which is what vLLM writes for who does not ask for them.
        """
        if not self.head:
            self._read_head(event)
        found, seen = _cut(event, _IDS)
        if not self._prompt:
            prompt, seen = _cut(seen, _PROMPT_IDS)
            self._prompt = prompt or b""
            self.prompt_tokens = _count(self._prompt)
        added = 0
        if found:
            self._ids += found + b","
            added = _count(found)
            self.tokens += added
        if self.tokens != usage.get("completion_tokens") or self.prompt_tokens != usage.get(
            "prompt_tokens"
        ):
            self.exact = False
        if _UNFINISHED not in event:
            self.finished = True
        if not (_CHAT_TEXT in event or _TEXT in event or _ROLE in event):
            # A parser of reasoning or tools reads along: what it makes of tokens cannot be redone.
            self.exact = False
            return seen, self.finished or _NO_DELTA not in event
        if _NO_CHAT_TEXT not in seen and _NO_TEXT not in seen:
            self._remember(added, seen)
        return seen, True

    def _remember(self, added: int, event: bytes) -> None:
        if not self._reach and (added == 1 or not self._greedy):
            self._unsure.clear()
            self._sure = self.tokens
            self._forgot = False
            return
        self._unsure.append((self.tokens, added == 1, event))
        if len(self._unsure) > _LONGEST_UNSURE + self._reach:
            self._sure = self._unsure.popleft()[0]
            self._forgot = True

    @property
    def prompt_ids(self) -> list[int]:
        """Return the prompt's token ids."""
        return [int(each) for each in self._prompt.split(b",")] if self._prompt else []

    def ids(self, count: int) -> list[int]:
        """Return the first of the generated ids."""
        return [int(each) for each in bytes(self._ids).split(b",")[:-1][:count]]

    def point(self) -> Point | None:
        """Return where to go on, None where that cannot be done exactly."""
        if not self.exact or not self._prompt:
            return None
        texts = [text_of(event) for _, _, event in self._unsure]
        if not self._reach:
            return self._sure_point("".join(texts))
        # After point i the client has texts[i+1:], of which the first `held` belong before it.
        after = ""
        for at in reversed(range(len(texts))):
            tokens, single, _ = self._unsure[at]
            if len(after) >= self._reach and (single or not self._greedy):
                return self._verified(Point(tokens, after[self._held :]))
            after = texts[at] + after
        return None if self._forgot else self._verified(Point(0, after))

    def _sure_point(self, after: str) -> Point | None:
        if not self._forgot:
            return self._verified(Point(self._sure, after))
        return Point(self._unsure[-1][0], "")

    def _verified(self, point: Point) -> Point | None:
        """Leave out what only greedy decoding says a second time in the same words."""
        return point if self._greedy or not point.known_text else None

    def rewind(self, point: Point) -> None:
        """Forget what came after a point: it is generated again."""
        kept = self.ids(point.tokens)
        self._ids = bytearray(b"".join(b"%d," % each for each in kept))
        self.tokens = point.tokens
        if self._forgot and not self._reach:
            self._sure, self._forgot = point.tokens, False
            self._unsure.clear()
        # What the client has of it stays known, but is no point any more.
        self._unsure = deque(
            (tokens, single and tokens <= point.tokens, event)
            for tokens, single, event in self._unsure
        )

    def _read_head(self, event: bytes) -> None:
        first = json.loads(event)
        self.head = {key: first.get(key) for key in ("id", "object", "created", "model")}


def text_of(event: bytes) -> str:
    """Return what an event of one choice says, chat or not."""
    choice = json.loads(event)["choices"][0]
    text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
    return text or ""


def _cut(event: bytes, key: bytes) -> tuple[bytes | None, bytes]:
    """Return the ids under a key, None if there are none, and the event with null for them."""
    at = event.rfind(key)
    if at < 0:
        return None, event
    begin = at + len(key)
    end = event.index(b"]", begin)
    return event[begin:end], event[: begin - 1] + b"null" + event[end + 1 :]


def _count(ids: bytes) -> int:
    return ids.count(b",") + 1 if ids else 0
