"""Several messages that a client posts as one: taken apart, judged each by itself, answered together.

Only revision 2025-03-26 has them. To the server the elements are single messages, which that revision takes as well: an
element that is denied leaves nothing behind, and what a server makes of a batch cannot differ from what was judged.

Source: JSON-RPC 2.0 section 6; Model Context Protocol, revision 2025-03-26, Transports, "Sending Messages to the
Server".
"""

from __future__ import annotations

from typing import Final

import msgspec

from enforcement.client_side import ClientSide, Headers
from enforcement.json_slices import exceeds_nodes
from enforcement.refusals import Reply
from enforcement.sse import encode_event

__all__ = ["MAX_ELEMENTS", "BatchClient", "elements_of"]

MAX_ELEMENTS: Final = 100
"""Most messages in a batch."""

_ACCEPTED: Final = 202
_OK: Final = 200
_FORBIDDEN: Final = 403
_NOBODY: Final = b'"id":null'
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


def elements_of(body: bytes, *, max_nodes: int) -> list[bytes] | None:
    """Return the elements of a batch as the text in which they stand; None if it is none that may pass.

    Args:
        body: A message's body.
        max_nodes: Most values in it.

    Returns:
        One to `MAX_ELEMENTS` texts. Whether each is a message is found out when it is read by itself.
    """
    if exceeds_nodes(body, max_nodes):
        return None
    try:
        elements = [bytes(element) for element in _LIST.decode(body)]
    except msgspec.DecodeError:
        return None
    return elements if 0 < len(elements) <= MAX_ELEMENTS else None


class BatchClient:
    """The way back for the elements of one batch: collects their answers, or streams them once one of them streams.

    It is a `enforcement.client_side.ClientSide` for one element after the other; `finish` follows the last.
    """

    def __init__(self, client: ClientSide) -> None:
        """Take the way back."""
        self._client = client
        self._answers: list[bytes] = []
        self._refused: Reply | None = None
        self._streaming = False

    async def finish(self) -> None:
        """Send what was collected."""
        if self._streaming:
            await self._client.end_stream()
        elif self._answers:
            await self._client.reply(Reply(status=_OK, body=b"[" + b",".join(self._answers) + b"]"))
        else:  # notifications and responses alone
            await self._client.reply(self._refused or Reply(status=_ACCEPTED, body=b""))

    async def reply(self, reply: Reply) -> None:
        """Take the whole answer of one element."""
        if reply.status == _FORBIDDEN and _NOBODY in reply.body:
            self._refused = self._refused or reply  # a notification, which has no answer among others
        elif reply.body and self._streaming:
            await self._client.send_event(encode_event(reply.body))
        elif reply.body:
            self._answers.append(reply.body)

    async def start_stream(self, headers: Headers = ()) -> None:
        """Begin to stream, and send what was collected before."""
        if self._streaming:
            return
        self._streaming = True
        await self._client.start_stream(headers)
        for answer in self._answers:
            await self._client.send_event(encode_event(answer))

    async def send_event(self, event: bytes) -> None:
        """Send an event of one element."""
        await self._client.send_event(event)

    async def end_stream(self) -> None:
        """Do nothing: other elements may have more to say."""

    def drop(self) -> None:
        """End the connection."""
        self._client.drop()
