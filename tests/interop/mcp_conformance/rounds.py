"""Tools and a prompt of the conformance server that need several rounds (``input_required``, revision 2026-07-28)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

_SETTLED: Final = "confirmed"


def _elicit(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(text: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def _said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


def _content(answer: object) -> Mapping[str, Any]:
    return getattr(answer, "content", None) or {}


def _answers(ctx: Context) -> Mapping[str, Any]:
    return ctx.input_responses or {}


Result = CallToolResult | InputRequiredResult


async def test_input_required_result_elicitation(ctx: Context) -> Result:
    """Ask for a name."""
    if "user_name" not in _answers(ctx):
        return InputRequiredResult(input_requests={"user_name": _elicit("What is your name?", "name")})
    return _said(f"Hello, {_content(_answers(ctx)['user_name']).get('name')}!")


async def test_input_required_result_sampling(ctx: Context) -> Result:
    """Ask the client's model."""
    if "capital_question" not in _answers(ctx):
        asked = _sample("What is the capital of France?", 100)
        return InputRequiredResult(input_requests={"capital_question": asked})
    content = getattr(_answers(ctx)["capital_question"], "content", None)
    return _said(f"The model said: {getattr(content, 'text', '')}")


async def test_input_required_result_list_roots(ctx: Context) -> Result:
    """Ask for the client's roots."""
    if "client_roots" not in _answers(ctx):
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
    roots = getattr(_answers(ctx)["client_roots"], "roots", [])
    return _said(" ".join(str(root.uri) for root in roots))


async def test_input_required_result_request_state(ctx: Context) -> Result:
    """Hold a state between two rounds."""
    if ctx.request_state is None:
        asked = {"confirm": _elicit("Please confirm", "ok", "boolean")}
        return InputRequiredResult(input_requests=asked, request_state=_SETTLED)
    return _said("state-ok" if ctx.request_state == _SETTLED else "another state")


async def test_input_required_result_tampered_state(ctx: Context) -> Result:
    """Hold a state that the SDK seals."""
    return await test_input_required_result_request_state(ctx)


async def test_input_required_result_multiple_inputs(ctx: Context) -> Result:
    """Ask for three things at once."""
    asked = {
        "user_name": _elicit("What is your name?", "name"),
        "greeting": _sample("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    if ctx.request_state is None or not asked.keys() <= _answers(ctx).keys():
        return InputRequiredResult(input_requests=asked, request_state=_SETTLED)
    return _said("all answered")


async def test_input_required_result_multi_round(ctx: Context) -> Result:
    """Ask twice, one after the other."""
    if ctx.request_state is None:
        asked = {"step1": _elicit("Step 1: What is your name?", "name")}
        return InputRequiredResult(input_requests=asked, request_state="1")
    if ctx.request_state == "1":
        asked = {"step2": _elicit("Step 2: What is your favorite color?", "color")}
        return InputRequiredResult(input_requests=asked, request_state="2")
    return _said("both answered")


async def test_input_required_result_capabilities(ctx: Context) -> Result:
    """Ask for what the client can answer."""
    able = ctx.client_capabilities
    asked: dict[str, Any] = {}
    if able is not None and able.sampling is not None:
        asked["capital_question"] = _sample("What is the capital of France?", 100)
    if able is not None and able.elicitation is not None:
        asked["user_name"] = _elicit("What is your name?", "name")
    return _said("done") if _answers(ctx) or not asked else InputRequiredResult(input_requests=asked)


async def test_input_required_result_prompt(ctx: Context) -> str | InputRequiredResult:
    """Ask for what the prompt is about."""
    if "user_context" not in _answers(ctx):
        asked = {"user_context": _elicit("What context should the prompt use?", "context")}
        return InputRequiredResult(input_requests=asked)
    return f"About {_content(_answers(ctx)['user_context']).get('context')}"


def add_rounds(server: MCPServer) -> None:
    """Add them to a server."""
    for tool in (
        test_input_required_result_elicitation,
        test_input_required_result_sampling,
        test_input_required_result_list_roots,
        test_input_required_result_request_state,
        test_input_required_result_tampered_state,
        test_input_required_result_multiple_inputs,
        test_input_required_result_multi_round,
        test_input_required_result_capabilities,
    ):
        server.add_tool(tool, structured_output=False)
    server.prompt()(test_input_required_result_prompt)
