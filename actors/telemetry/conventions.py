"""The names in traces: all of them here, and nowhere else.

`gen_ai.*` are those of the OpenTelemetry GenAI conventions v0.1.0 (github.com/open-telemetry/
semantic-conventions-genai), which are still in development, so a change of theirs is a change of this file.
The few of OpenInference are what viewers such as Phoenix and Langfuse read. `http.*`, `error.*`,
`messaging.*` and the names of the resource are those of semantic conventions v1.45.0. `orchestra.*` are our
own and stay.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""The version of the GenAI conventions that the names below follow; on the scope of every span and log."""
SCOPE: Final = "orchestra"
PROVIDER: Final = "orchestra"
"""Value of `gen_ai.provider.name`."""

# GenAI: operations
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
PLAN: Final = "plan"
RETRIEVAL: Final = "retrieval"

# GenAI: attributes
AGENT_NAME: Final = "gen_ai.agent.name"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OPERATION_NAME: Final = "gen_ai.operation.name"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

# GenAI: events, which are log records
EVALUATION_RESULT: Final = "gen_ai.evaluation.result"

# OpenInference
SPAN_KIND: Final = "openinference.span.kind"
SESSION_ID: Final = "session.id"
USER_ID: Final = "user.id"
AGENT: Final = "AGENT"
CHAIN: Final = "CHAIN"
EMBEDDING: Final = "EMBEDDING"
EVALUATOR: Final = "EVALUATOR"
LLM: Final = "LLM"
RETRIEVER: Final = "RETRIEVER"
TOOL: Final = "TOOL"

# semantic conventions v1.45.0
ERROR_TYPE: Final = "error.type"
HOST_NAME: Final = "host.name"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_RESPONSE_STATUS: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_OPERATION: Final = "messaging.operation.type"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_SIZE: Final = "messaging.message.envelope.size"
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_TEMPLATE: Final = "messaging.destination.template"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"

# what NATS servers tell of a message; the conventions have no names for it
NATS_CLUSTER: Final = "nats.server.cluster"
NATS_FORWARDED_TO: Final = "nats.forwarded_to"
NATS_HOP: Final = "nats.hop"
NATS_RECEIVER_COUNT: Final = "nats.receiver_count"
NATS_RECEIVERS: Final = "nats.receivers"
NATS_SENDER: Final = "nats.sender"
NATS_SERVER: Final = "nats.server.name"
NATS_STREAM: Final = "nats.stream"

# our own
ADMISSION_SECONDS: Final = "orchestra.admission_s"
ATTEMPT: Final = "orchestra.attempt"
BACKEND: Final = "orchestra.backend"
CACHE: Final = "orchestra.cache"
CANDIDATES: Final = "orchestra.placement.candidates"
HEDGE: Final = "orchestra.hedge"
LOG_DATA: Final = "orchestra.data"
MODEL: Final = "orchestra.model"
NODE: Final = "orchestra.node"
OUTCOME: Final = "orchestra.outcome"
PATTERN: Final = "orchestra.pattern"
PRIORITY: Final = "orchestra.priority"
QUEUED_SECONDS: Final = "orchestra.queued_s"
ROLE: Final = "orchestra.role"
RUN: Final = "orchestra.run"
STEP: Final = "orchestra.step"
STREAM: Final = "orchestra.stream"
TOKENS_TOTAL: Final = "orchestra.tokens.total"
"""Tokens of a run: not under `gen_ai.usage`, which viewers would add to those of its model calls."""
