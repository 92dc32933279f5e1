"""What the log says of each request: the event `request.ended`, and a local line if it failed or was slow."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.bus.subjects import CHAT_SUBJECT
from actors.gateway.answer_metrics import AnswerLabels, count_end, count_stream, count_usage, labels_of
from actors.gateway.metrics import count_request
from actors.openai_api.encoder import ChoiceEvent, Event
from actors.runtime.envelope import trace_of
from actors.telemetry.event_log import RECORDED, event_log
from actors.telemetry.redaction import error_text
from actors.telemetry.tracing import recorded_span_id, trace_id
from orchestration.errors import OrchestraError
from orchestration.log_events import LogLevel
from orchestration.messages import Run, StreamEnd, TextDelta, Usage

if TYPE_CHECKING:
    from actors.gateway.admitted_request import AdmittedRequest
    from actors.streams.reader import StreamReader

log = logging.getLogger(__name__)

CANCELLED = 499
ANSWER_ROUTES = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", CHAT_SUBJECT})
"""The routes that ask for answers, over HTTP and NATS."""
_LEVELS = {LogLevel.INFO: logging.INFO, LogLevel.WARNING: logging.WARNING, LogLevel.ERROR: logging.WARNING}


class RequestOutcome:
    """What is seen of the response of one request while it passes."""

    __slots__ = ("admitted_s", "cache", "finish", "first_s", "reader", "started", "tokens", "usages")

    def __init__(self) -> None:
        self.started = time.perf_counter()
        """When the request arrived, by `perf_counter`; whoever knows better sets it."""
        self.cache = ""
        """`hit`, `shared`, `miss` or ''."""
        self.admitted_s = 0.0
        """Time that the request waited at the limits of the gateway."""
        self.first_s = 0.0
        """Seconds from the arrival of the request to its first text; 0: none came. The metric, the log and
        the span of the request all have this number."""
        self.tokens = 0
        """Tokens of the text so far."""
        self.usages: dict[int, Usage] = {}
        """The usage of each choice that has ended."""
        self.finish: StreamEnd | None = None
        """The last end."""
        self.reader: StreamReader | None = None
        """The reader of its stream, which knows how often that moved; none for a cached response."""

    def observe(self, event: Event) -> None:
        """Note one event of the response."""
        index = 0
        if isinstance(event, ChoiceEvent):
            index, event = event.index, event.event
        if type(event) is TextDelta:
            self.tokens += event.tokens
            if not self.first_s and (event.text or event.reasoning):
                self.first_s = round(time.perf_counter() - self.started, 6)
        elif isinstance(event, StreamEnd):
            self.usages[index] = event.finish.usage
            self.finish = event

    def usage(self, repeats: int) -> Usage:
        """The tokens as the response states them: a prompt of `repeats` choices counts once. Of a response
        that was cut, the tokens of the text that was passed on."""
        if not self.usages:
            return Usage(completion_tokens=self.tokens)
        counted = [
            usage if index % repeats == 0 else usage.model_copy(update={"prompt_tokens": 0})
            for index, usage in self.usages.items()
        ]
        return sum(counted[1:], start=counted[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnd:
    """A request that has ended. `started` is its begin by `perf_counter`."""

    protocol: str
    route: str
    status: int
    started: float
    caller: str
    trace: str
    """Its traceparent, or ''."""
    run: str = ""
    error: OrchestraError | None = None
    request: AdmittedRequest | None = None
    by_operator: bool = False
    """Whether it is an operation of operators. These ask often, and changes have their audit: there is no
    event unless it failed or was slow."""

    def record(self, slow_s: float) -> None:
        """Record the event, and write a local line for a request that failed or took `slow_s` or longer."""
        duration_s = time.perf_counter() - self.started
        self._count(duration_s)
        slow = duration_s >= slow_s
        level = self._level(slow)
        failed = self.status >= 400
        if not (slow or failed) and (self.by_operator or not event_log.enabled):
            return
        fields = self._fields()
        data = self._data(duration_s, slow)
        outcome = data["outcome"]
        tokens = ""
        if "output_tokens" in data:
            tokens = f", {data['input_tokens']} tokens read, {data['output_tokens']} written"
        message = f"{self.route} {outcome} with {self.status} after {duration_s:.3f} s{tokens}"
        event_log.record("request.ended", level=level, message=message, data=data, **fields)
        if slow or failed:
            known = " ".join(f"{name}={value}" for name, value in fields.items() if value and name != "span")
            reason = f" {data['error']}: {data['error_text']}" if failed and "error" in data else ""
            log.log(_LEVELS[level], "%s%s (%s)", message, reason, known, extra=RECORDED)

    def _count(self, duration_s: float) -> None:
        """Count it in the metrics; `HttpApi` has counted its status over HTTP."""
        if self.protocol == "nats":
            count_request("nats", self.route, self.status)
        route = self.route.removeprefix("POST ")
        if self.request is None and route not in ANSWER_ROUTES:
            return
        status = self.status if self.error is None else self.error.status
        code = "" if self.error is None else self.error.code
        if self.request is None:
            count_end((self.protocol, route), AnswerLabels(), code, status, duration_s)
            return
        request, outcome = self.request, self.request.outcome
        work = request.work
        pattern = work.pattern if isinstance(work, Run) else ""
        labels = labels_of(work.model, pattern, stream=request.stream)
        usage = outcome.usage(request.repeats)
        count_end((self.protocol, route), labels, code, status, duration_s)
        count_usage(labels, usage, 0 if outcome.reader is None else outcome.reader.moves)
        if request.stream and outcome.first_s:
            first_s, more = outcome.first_s, usage.completion_tokens - 1
            complete = status < 400 and more > 0
            count_stream(labels, first_s, (duration_s - first_s) / more if complete else None)

    def _level(self, slow: bool) -> LogLevel:
        if self.status >= 500:
            return LogLevel.ERROR
        return LogLevel.WARNING if slow or self.status in (408, 429) else LogLevel.INFO

    def _fields(self) -> dict[str, Any]:
        fields = {
            "run": self.run,
            "trace": trace_id(self.trace),
            "span": recorded_span_id(self.trace),
            "caller": self.caller,
        }
        if self.request is None:
            return fields
        work, end = self.request.work, self.request.outcome.finish
        fields["run"] = work.id
        if isinstance(work, Run) and not fields["trace"]:
            fields["trace"] = (end.trace_id if end is not None else "") or trace_id(trace_of(work.id))
        fields["model"] = (end.finish.model if end is not None else "") or work.model or ""
        fields["node"] = end.finish.node if end is not None else ""
        fields["pattern"] = work.pattern if isinstance(work, Run) else ""
        return fields

    def _data(self, duration_s: float, slow: bool) -> dict[str, Any]:
        data: dict[str, Any] = {
            "protocol": self.protocol,
            "route": self.route,
            "status": self.status,
            "outcome": self._outcome(),
            "duration_s": round(duration_s, 6),
        }
        if slow:
            data["slow"] = True
        if self.error is not None:
            data |= {"error": self.error.code, "error_text": error_text(self.error)[:500]}
        if self.request is not None:
            data |= self._answer_data(self.request)
        return data

    def _answer_data(self, request: AdmittedRequest) -> dict[str, Any]:
        outcome = request.outcome
        usage = outcome.usage(request.repeats)
        data: dict[str, Any] = {
            "stream": request.stream,
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "queue_s": round(outcome.admitted_s, 6),
        }
        if request.others:
            data["choices"] = 1 + len(request.others)
        if usage.estimated:
            data["estimated"] = True
        if outcome.finish is not None:
            data["finish_reason"] = outcome.finish.finish.reason
        if request.stream and outcome.first_s:
            data["time_to_first_token_s"] = outcome.first_s
        if outcome.cache:
            data["cache"] = outcome.cache
        if outcome.reader is not None and outcome.reader.moves:
            data["moves"] = outcome.reader.moves
        if outcome.reader is not None and outcome.reader.hedges:
            data["hedges"] = outcome.reader.hedges
        return data

    def _outcome(self) -> str:
        if self.status < 400:
            return "answered" if self.error is None else "failed"
        if self.status == CANCELLED:
            return "cancelled"
        if self.status == 504:
            return "timed out"
        return "failed" if self.status >= 500 else "refused"
