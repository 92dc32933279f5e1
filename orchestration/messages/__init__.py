"""What travels between actors: generations, runs, the events of a stream, and what nodes say of themselves.

Messages are frozen, and checked where bytes from the wire come in. The envelope (deadline, trace, caller)
travels in the headers instead: see `actors.runtime.envelope`.
"""

from orchestration.messages.chat import ChatMessage, GuidedDecoding, LogitBias, Sampling, TokenId
from orchestration.messages.error_body import ErrorBody
from orchestration.messages.events import (
    Accounts,
    End,
    EventFrame,
    Finish,
    FinishReason,
    GenerationEnd,
    JoinedText,
    Progress,
    RunEnd,
    Step,
    StreamEnd,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    TopLogprob,
    Usage,
    Vectors,
    decode_event,
    encode_event,
)
from orchestration.messages.handoff import HandoffRequest, StreamPosition
from orchestration.messages.nodes import (
    Hardware,
    LoadModel,
    LoadResult,
    MemoryUse,
    ModelCard,
    ModelRates,
    NodeInfo,
    UnloadModel,
)
from orchestration.messages.tools import Tool, ToolCall, ToolOffer, ToolResult
from orchestration.messages.wire import Wire
from orchestration.messages.work import Budget, Continuation, Generation, Priority, Run

__all__ = [
    "Accounts",
    "Budget",
    "ChatMessage",
    "Continuation",
    "End",
    "ErrorBody",
    "EventFrame",
    "Finish",
    "FinishReason",
    "Generation",
    "GenerationEnd",
    "GuidedDecoding",
    "HandoffRequest",
    "Hardware",
    "JoinedText",
    "LoadModel",
    "LoadResult",
    "LogitBias",
    "MemoryUse",
    "ModelCard",
    "ModelRates",
    "NodeInfo",
    "Priority",
    "Progress",
    "Run",
    "RunEnd",
    "Sampling",
    "Step",
    "StreamEnd",
    "StreamEvent",
    "StreamPosition",
    "TextDelta",
    "TokenId",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolOffer",
    "ToolResult",
    "TopLogprob",
    "UnloadModel",
    "Usage",
    "Vectors",
    "Wire",
    "decode_event",
    "encode_event",
]
