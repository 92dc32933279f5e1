"""The names in traces, held against a table of the conventions that they follow."""

from __future__ import annotations

from actors.telemetry import conventions

GEN_AI = {
    "agent.name conversation.id operation.name provider.name",
    "evaluation.explanation evaluation.name evaluation.result evaluation.score.label evaluation.score.value",
    "input.messages output.messages retrieval.top_k tool.call.arguments tool.call.result tool.name",
    "request.max_tokens request.model request.stream",
    "response.finish_reasons response.id response.model response.time_to_first_chunk",
    "usage.cache_read.input_tokens usage.input_tokens usage.output_tokens usage.reasoning.output_tokens",
}
"""v0.1.0 of github.com/open-telemetry/semantic-conventions-genai."""
OPERATIONS = {
    "chat",
    "embeddings",
    "execute_tool",
    "invoke_agent",
    "invoke_workflow",
    "plan",
    "retrieval",
    "text_completion",
}
OPENINFERENCE = {"openinference.span.kind", "session.id", "user.id"}
KINDS = {"AGENT", "CHAIN", "EMBEDDING", "EVALUATOR", "LLM", "RETRIEVER", "TOOL"}
SEMCONV = {
    "error.type",
    "host.name",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "messaging.destination.name",
    "messaging.destination.template",
    "messaging.message.envelope.size",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.system",
    "service.instance.id",
    "service.name",
    "service.version",
}
"""v1.45.0 of the semantic conventions."""


OWN = ("orchestra.", "nats.")
"""The conventions have no names for what NATS servers tell of a message."""


def test_every_name_is_one_of_the_conventions_or_our_own() -> None:
    named = {
        value
        for name, value in vars(conventions).items()
        if name.isupper() and name not in ("SCHEMA_URL", "SCOPE", "PROVIDER")
    }
    gen_ai = {f"gen_ai.{name}" for line in GEN_AI for name in line.split()}
    own = {value for value in named if value.startswith(OWN)}
    assert named - own == gen_ai | OPERATIONS | OPENINFERENCE | KINDS | SEMCONV
    assert conventions.SCHEMA_URL.endswith("/0.1.0")


def test_no_name_is_that_of_an_earlier_version() -> None:
    withdrawn = ("gen_ai.workflow.name", "gen_ai.client.token.usage", "gen_ai.system", "gen_ai.prompt")
    assert not set(withdrawn) & {value for value in vars(conventions).values() if isinstance(value, str)}
