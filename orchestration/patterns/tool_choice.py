"""Tools that an agent chooses by itself, such as those of MCP servers: which one, with what, a few times.

Each choice is two guided generations, of the tool's name and of its arguments by the tool's own schema, so
that a small model cannot write anything else. What comes back is material like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, GuidedDecoding, Sampling, Tool
from orchestration.patterns.base import StepOptions
from orchestration.patterns.clipping import clip
from orchestration.patterns.grounding_context import Source, quoted
from orchestration.patterns.run_context import RunContext

NONE = "none"
CHOICE_TOKENS = 48
ARGUMENT_TOKENS = 192
STRING_CHARACTERS = 200
MAX_ITEMS = 8
TASK_TOKENS = 400
DESCRIPTION_TOKENS = 40
RESULT_TOKENS = 300

_DROPPED = frozenset(("$schema", "$id", "title", "description", "default", "examples", "format"))


async def call_tools(
    context: RunContext, agent: str, task: str, tools: Sequence[Tool], *, name: str, first: int
) -> list[Source]:
    """The results of the tools that `agent` chooses for `task`, as sources numbered from `first` on; at most
    `StepLimits.tool_calls`. An error ends the choice of tools and is published as progress."""
    sources: list[Source] = []
    seen_calls: set[str] = set()
    for turn in range(1, context.limits.tool_calls + 1):
        try:
            tool = await _chosen(context, agent, task, tools, sources, f"{name}: choice {turn}")
            if tool is None:
                break
            arguments = await _arguments(context, agent, task, tool, sources, f"{name}: arguments {turn}")
            call = f"{tool.name} {json.dumps(arguments, ensure_ascii=False, sort_keys=True)}"
            if call in seen_calls:
                break
            seen_calls.add(call)
            result = await context.use(agent, tool.name, arguments, name=f"{name}: {tool.name} {turn}")
        except (OrchestraError, ValueError) as error:
            await context.progress(f"{name}: {agent} chooses no more tools: {error}")
            break
        text = f"failed: {result.error}" if result.error else result.text or json.dumps(result.data)
        sources.append(Source(n=first + len(sources), document=tool.name, label=call, text=text, score=1.0))
    return sources


async def _chosen(
    context: RunContext, agent: str, task: str, tools: Sequence[Tool], sources: Sequence[Source], name: str
) -> Tool | None:
    offered = "\n".join(f"- {tool.name}: {_says(tool)}" for tool in tools)
    task = clip(task, _task_tokens(context))
    request = (
        f"Tools:\n{offered}\n- {NONE}: no tool helps, or what was found is enough\n\n"
        f"{_so_far(sources)}Task: {task}\n\nWhich tool do you use? Reply in JSON."
    )
    by_name = {tool.name: tool for tool in tools}
    schema = _object({"tool": {"type": "string", "enum": [*by_name, NONE]}})
    reply = await _guided(context, agent, request, schema, CHOICE_TOKENS, name)
    return by_name.get(str(reply.get("tool")))


async def _arguments(
    context: RunContext, agent: str, task: str, tool: Tool, sources: Sequence[Source], name: str
) -> dict[str, Any]:
    if not tool.parameters.get("properties"):
        return {}
    described = clip(json.dumps(tool.parameters["properties"], ensure_ascii=False), TASK_TOKENS)
    task = clip(task, _task_tokens(context))
    request = (
        f"Tool {tool.name}: {_says(tool)}\nIts arguments: {described}\n\n"
        f"{_so_far(sources)}Task: {task}\n\nWrite the arguments for the task in JSON."
    )
    return await _guided(context, agent, request, bounded(tool.parameters), ARGUMENT_TOKENS, name)


def _task_tokens(context: RunContext) -> int:
    return TASK_TOKENS if context.is_small() else max(TASK_TOKENS, context.limits.passed_tokens)


def _says(tool: Tool) -> str:
    """The description of a tool, on one line of the prompt."""
    return clip(" ".join(tool.description.split()), DESCRIPTION_TOKENS)


def _so_far(sources: Sequence[Source]) -> str:
    return f"Found so far, as quoted material:\n{clip(quoted(sources), RESULT_TOKENS)}\n\n" if sources else ""


async def _guided(
    context: RunContext, agent: str, request: str, schema: Mapping[str, Any], tokens: int, name: str
) -> dict[str, Any]:
    """Raises ValueError for an answer that is cut off. `tokens` are those of a small model."""
    sampling = Sampling(temperature=0, max_tokens=tokens)
    if not context.is_small():
        sampling = Sampling(max_tokens=max(tokens, context.limits.verdict_tokens))
    answer = await context.ask(
        agent,
        (ChatMessage(role="user", content=request),),
        name=name,
        options=StepOptions(sampling=sampling, guide=GuidedDecoding(json_schema=dict(schema))),
    )
    try:
        reply = json.loads(answer.text)
    except RecursionError:
        raise ValueError("the arguments are nested too deeply") from None
    if not isinstance(reply, dict):
        raise ValueError("the arguments are no JSON object")
    return reply


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def bounded(schema: Any) -> Any:
    """A tool's schema with bounds on every text and list, so that a generation which follows it ends; without
    what only describes it."""
    if isinstance(schema, list):
        return [bounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: value for name, value in schema.items() if name not in _DROPPED}
    for name in ("properties", "$defs", "definitions"):  # whose keys are names, and may be any word
        if isinstance(schema.get(name), dict):
            result[name] = {key: bounded(value) for key, value in schema[name].items()}
    for name in ("items", "anyOf", "oneOf", "allOf"):
        if name in result:
            result[name] = bounded(result[name])
    kind = result.get("type")
    if kind == "string" and "enum" not in result and "const" not in result:
        result["maxLength"] = min(STRING_CHARACTERS, int(result.get("maxLength", STRING_CHARACTERS)))
    if kind == "array":
        result["maxItems"] = min(MAX_ITEMS, int(result.get("maxItems", MAX_ITEMS)))
    if kind == "object" and "properties" in result:
        result["additionalProperties"] = False
    return result
