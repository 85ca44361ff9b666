"""The MCP server of the conformance runs: what the official suite asks for, made with the official Python SDK.

The suite calls tools, prompts and resources by names of its own, and says in each scenario's description what they do.
Where the SDK differs from the suite, a check fails; it must fail in the same way through each transport of ours.

Source: npm ``@modelcontextprotocol/conformance``, descriptions of its server scenarios.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    Completion,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from tests.interop.mcp_conformance.rounds import add_rounds
from tests.interop.mcp_conformance.schemas import DEFAULTS, EMAIL, ENUMS, FOCAL, HEADERS

__all__ = ["Conformance"]

_PAUSE_SECONDS: Final = 0.05


def _png() -> str:
    """Return a picture of one red pixel, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _wav() -> str:
    """Return eight silent samples, in base64."""
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 8) + b"\x80" * 8
    return base64.b64encode(b"RIFF" + struct.pack("<I", len(body)) + body).decode()


IMAGE: Final = ImageContent(type="image", data=_png(), mime_type="image/png")
AUDIO: Final = AudioContent(type="audio", data=_wav(), mime_type="audio/wav")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


class Conformance:
    """A server with everything the suite asks for.

    Attributes:
        server: It.
        reached: How often each tool, prompt and resource was asked for: what a denial must keep at nothing.
    """

    def __init__(self) -> None:
        self.reached: Counter[str] = Counter()
        hint = CacheHint(ttl_ms=1000, scope="private")
        self.server = MCPServer(
            "conformance",
            version="1.0.0",
            cache_hints={
                "tools/list": hint,
                "prompts/list": hint,
                "resources/list": hint,
                "resources/templates/list": hint,
                "resources/read": hint,
                "server/discover": hint,
            },
            middleware=[self._count],
        )
        self._watched: set[str] = set()
        self._add_contents()
        self._add_questions()
        self._add_streams()
        self._add_schemas()
        self._add_prompts()
        self._add_resources()
        self._add_utilities()
        add_rounds(self.server)

    async def _count(self, ctx: Any, call_next: Any) -> Any:
        self.reached[ctx.method] += 1
        return await call_next(ctx)

    def _tool(self, function: Callable[..., Any], **options: Any) -> None:
        self.server.add_tool(function, structured_output=False, **options)

    # --- tools

    def _add_contents(self) -> None:
        def test_simple_text() -> TextContent:
            """Return text."""
            return _text("This is a simple text response for testing.")

        def test_image_content() -> ImageContent:
            """Return an image."""
            return IMAGE

        def test_audio_content() -> AudioContent:
            """Return sound."""
            return AUDIO

        def test_embedded_resource() -> EmbeddedResource:
            """Return a resource."""
            return _embedded("test://embedded-resource", "This is an embedded resource content.")

        def test_multiple_content_types() -> list[Any]:
            """Return several kinds of content."""
            mixed = _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
            return [_text("Multiple content types test:"), IMAGE, mixed]

        def test_error_handling() -> str:
            """Fail."""
            raise ToolError("This tool intentionally returns an error for testing")

        for function in (
            test_simple_text,
            test_image_content,
            test_audio_content,
            test_embedded_resource,
            test_multiple_content_types,
            test_error_handling,
        ):
            self._tool(function)

    def _add_questions(self) -> None:
        async def test_sampling(prompt: str, ctx: Context) -> str:
            """Ask the client's model."""
            message = SamplingMessage(role="user", content=_text(prompt))
            result = await ctx.session.create_message(messages=[message], max_tokens=100)
            return f"LLM response: {getattr(result.content, 'text', '')}"

        async def test_elicitation(message: str, ctx: Context) -> str:
            """Ask the person."""
            return f"User response: {await _ask(ctx, message, EMAIL)}"

        async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
            """Ask the person, with defaults."""
            return f"Elicitation completed: {await _ask(ctx, 'Please review the defaults', DEFAULTS)}"

        async def test_elicitation_sep1330_enums(ctx: Context) -> str:
            """Ask the person to choose."""
            return f"Elicitation completed: {await _ask(ctx, 'Please choose', ENUMS)}"

        async def test_missing_capability(ctx: Context) -> str:
            """Do what needs a model of the client's."""
            capabilities = ctx.client_capabilities
            if capabilities is None or capabilities.sampling is None:
                data = {"requiredCapabilities": {"sampling": {}}}
                raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs sampling", data)
            return "sampling is there"

        async def test_streaming_elicitation(ctx: Context) -> CallToolResult | InputRequiredResult:
            """Ask the person on the way, without a request of its own."""
            if ctx.input_responses:
                return CallToolResult(content=[_text("asked")])
            asking = ElicitRequest(params=ElicitRequestFormParams(message="Who?", requested_schema=EMAIL))
            return InputRequiredResult(input_requests={"who": asking})

        for function in (
            test_sampling,
            test_elicitation,
            test_elicitation_sep1034_defaults,
            test_elicitation_sep1330_enums,
            test_missing_capability,
            test_streaming_elicitation,
        ):
            self._tool(function)

    def _add_streams(self) -> None:
        async def test_tool_with_logging(ctx: Context) -> str:
            """Log on the way."""
            for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
                await ctx.info(text)
                await asyncio.sleep(_PAUSE_SECONDS)
            return "logged"

        async def test_logging_tool(ctx: Context) -> str:
            """Log on the way, if asked to."""
            await ctx.info("Tool execution started")
            return "logged"

        async def test_tool_with_progress(ctx: Context) -> str:
            """Report progress."""
            for step in (0, 50, 100):
                await ctx.report_progress(step, 100)
                await asyncio.sleep(_PAUSE_SECONDS)
            return "done"

        async def test_reconnection(ctx: Context) -> str:
            """End the stream, and answer on the next one."""
            await ctx.close_sse_stream()
            await asyncio.sleep(2 * _PAUSE_SECONDS)
            return "Reconnection test completed successfully"

        async def test_trigger_tool_change(ctx: Context) -> str:
            """Say that the tools are others."""
            await ctx.notify_tools_changed()
            return "told"

        async def test_trigger_prompt_change(ctx: Context) -> str:
            """Say that the prompts are others."""
            await ctx.notify_prompts_changed()
            return "told"

        for function in (
            test_tool_with_logging,
            test_logging_tool,
            test_tool_with_progress,
            test_reconnection,
            test_trigger_tool_change,
            test_trigger_prompt_change,
        ):
            self._tool(function)

    def _add_schemas(self) -> None:
        def json_schema_2020_12_tool(name: str = "", address: dict[str, Any] | None = None) -> str:
            """Have a schema of many keywords."""
            return f"{name} {address}"

        def test_custom_headers(region: str) -> str:
            """Have a parameter that is mirrored in a header."""
            return region

        for function, schema in ((json_schema_2020_12_tool, FOCAL), (test_custom_headers, HEADERS)):
            self._tool(function)
            tool = self.server._tool_manager.get_tool(function.__name__)
            assert tool is not None
            tool.parameters = schema

    # --- prompts, resources and the rest

    def _add_prompts(self) -> None:
        prompt = self.server.prompt

        @prompt()
        def test_simple_prompt() -> str:
            """Say something."""
            return "This is a simple prompt for testing."

        @prompt()
        def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
            """Say what was given."""
            return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

        @prompt()
        def test_prompt_with_embedded_resource(resourceUri: str) -> list[Any]:  # noqa: N803  # the suite's name
            """Show a resource."""
            embedded = _embedded(resourceUri, "Embedded resource content for testing.")
            return [UserMessage(embedded), UserMessage("Please process the embedded resource above.")]

        @prompt()
        def test_prompt_with_image() -> list[Any]:
            """Show an image."""
            return [UserMessage(IMAGE), UserMessage("Please analyze the image above.")]

    def _add_resources(self) -> None:
        resource = self.server.resource

        @resource("test://static-text", mime_type="text/plain")
        def static_text() -> str:
            """Text."""
            return "This is the content of the static text resource."

        @resource("test://static-binary", mime_type="image/png")
        def static_binary() -> bytes:
            """An image."""
            return base64.b64decode(IMAGE.data)

        @resource("test://watched-resource", mime_type="text/plain")
        def watched_resource() -> str:
            """Text that somebody watches."""
            return "watched"

        @resource("test://template/{id}/data", mime_type="application/json")
        def template(id: str) -> str:  # noqa: A002  # the suite's name
            """Data of one id."""
            return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'

    def _add_utilities(self) -> None:
        @self.server.completion()
        async def complete(_ref: Any, argument: Any, _context: Any) -> Completion:
            found = [value for value in ("paris", "park", "party") if value.startswith(argument.value)]
            return Completion(values=found, total=len(found), has_more=False)

        async def set_level(_ctx: Any, _params: SetLevelRequestParams) -> EmptyResult:
            return EmptyResult()

        async def subscribe(_ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
            self._watched.add(str(params.uri))
            return EmptyResult()

        async def unsubscribe(_ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
            self._watched.discard(str(params.uri))
            return EmptyResult()

        lowlevel = self.server._lowlevel_server
        lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
        lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


async def _ask(ctx: Context, message: str, schema: dict[str, Any]) -> str:
    result = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={result.action}, content={getattr(result, 'content', None)}"
