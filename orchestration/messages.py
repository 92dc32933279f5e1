"""What travels between actors: generations, runs, and the events of a stream.

Every message is a frozen pydantic model, so that bytes from the wire are checked where they come in.
The envelope (deadline, trace, caller) travels apart, in the headers: see `actors.runtime.envelope`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from orchestration.errors import ErrorBody
from orchestration.priority import Priority as Priority
from orchestration.tools import Tool as Tool
from orchestration.tools import ToolCall as ToolCall
from orchestration.tools import ToolOffer as ToolOffer
from orchestration.tools import ToolResult as ToolResult


class Wire(BaseModel):
    """Base of all messages: frozen, and unknown fields are ignored so that versions can differ."""

    model_config = ConfigDict(frozen=True)


class ChatMessage(Wire):
    """One turn of a conversation. Content is text; other kinds of content are refused at the gateway.

    An assistant may call tools; a message of role `tool` answers the call of that id.
    """

    role: Literal["system", "user", "assistant", "tool"]
    tool_calls: tuple[ToolCall, ...] = ()
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    reasoning: str = ""
    """What the assistant thought before its answer, where the caller sends that back: for upstreams."""


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
LogitBias = Annotated[float, Field(ge=-100, le=100)]


class Sampling(Wire):
    """How the next token is chosen. A temperature of 0 is greedy and ignores top_p and top_k.

    `None` means "not said": the role's or the backend's default applies.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = Field(default=None, gt=0, le=4)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Tokens less likely than this share of the likeliest one's probability are left out."""
    min_tokens: int | None = Field(default=None, ge=0)
    """Tokens before the answer may end."""
    ignore_eos: bool | None = None
    """Whether the answer goes on where the model would end it."""
    stop_token_ids: tuple[TokenId, ...] | None = Field(default=None, max_length=1_024)
    """Tokens that end the answer, as the model's own ends do."""
    logit_bias: dict[TokenId, LogitBias] | None = Field(default=None, max_length=1_024)
    """What is added to the logits of these tokens."""
    truncate_prompt_tokens: int | None = Field(default=None, ge=1)
    """Tokens of the prompt that are read: the last ones."""

    def over(self, defaults: Sampling) -> Sampling:
        """These values where they were said, `defaults` elsewhere."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return defaults.model_copy(update={name: value for name, value in said.items() if value is not None})


class Guide(Wire):
    """What the text must conform to: a JSON schema, a regular expression, one of the texts of `choice`, or a
    grammar (Lark's form, or llama.cpp's GBNF), exactly one of them.

    `json_schema` of `{}` means any JSON value ("json_object" of the OpenAI API uses `{"type": "object"}`).
    `name`, `description` and `strict` are what the caller gave beside the schema, for upstreams; without a
    `name` the schema is Orchestra's own. `field` is where the caller said it, '' for Orchestra itself.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    field: str = ""
    name: str = ""
    description: str = ""
    strict: bool | None = None


class Generation(Wire):
    """One model call.

    `id` is `<asker>.<number>`, two subject tokens: the asker listens to `stream.<asker>.>` once and
    gets every stream it asked for. Exactly one of `messages` (kind chat), `prompt` (kind completion)
    and `inputs` (kind embedding) is used.

    `prefix` to `writer` are set where another node has begun the answer: `prefix` is the text that was
    read so far, of `prefix_tokens` tokens; the next event is number `first_seq`, signed by `writer`.
    """

    id: str
    kind: Literal["chat", "completion", "embedding"] = "chat"
    model: str
    messages: tuple[ChatMessage, ...] = ()
    prompt: str = ""
    prompt_ids: tuple[TokenId, ...] = ()
    """Of a completion whose caller sends tokens of the model's own vocabulary, not a text."""
    prefill: str = ""
    """What the caller began the answer with: the model goes on after it, and the answer is what follows."""
    inputs: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    guide: Guide | None = None
    offer: ToolOffer | None = None
    priority: Priority = Priority.INTERACTIVE
    prefix: str = ""
    prefix_tokens: int = Field(default=0, ge=0)
    first_seq: int = Field(default=0, ge=0)
    writer: str = ""
    labels: dict[str, str] = {}
    """What the node must have: see `orchestration.placement.needs`."""
    extra: dict[str, Any] = {}
    """Fields of the caller's body that Orchestra does not use. An upstream gets them as they came."""


class Resume(Wire):
    """Asks who reads a stream how it goes on: see `actors.streams.client`. While something was read of it
    the last `quiet_s` seconds its writer is taken to be alive.

    With `tell`, a second writer may race the first one, unless something was read already: who came first
    is published there, as the second's name or as nothing.
    """

    quiet_s: float = 0.0
    tell: str = ""
    attempt: int = 0
    """The delivery that whoever asks has of the work; a later one than its is at it where the answer says
    `superseded`. 0 where it cannot be told."""
    peek: bool = False
    """Only tell whether the writer was heard of within `quiet_s`, and as `seq` the number of its events."""


class SoFar(Wire):
    """What was read of a stream, and who may write on: nobody but `writer`, from event `seq` on.

    With `alive`, who wrote until now goes on, and nothing has changed. Not `open`: nobody wants it any more.
    `superseded`: a later delivery of the work has been taken up, and this one is to be left alone.
    """

    open: bool = True
    alive: bool = False
    superseded: bool = False
    text: str = ""
    tokens: int = 0
    seq: int = 0
    writer: str = ""


class Budget(Wire):
    """What a run may use at most; None is no limit. `tokens` are those read and written by all steps."""

    tokens: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    calls: int | None = Field(default=None, ge=1)


class Run(Wire):
    """One orchestrated request: a pattern and the conversation it is about."""

    id: str
    pattern: str
    messages: tuple[ChatMessage, ...]
    model: str | None = None
    """The model the caller prefers for every step; None leaves it to the roles."""
    sampling: Sampling = Sampling()
    guide: Guide | None = None
    priority: Priority = Priority.INTERACTIVE
    labels: dict[str, str] = {}
    """What the nodes of every step must have."""
    extra: dict[str, Any] = {}
    """Of the generation of every step: see `Generation.extra`."""
    settings: dict[str, Any] = {}
    """Of the pattern, which knows and checks them."""
    budget: Budget = Budget()


class Usage(Wire):
    """Tokens read and written. `cached_tokens` of the prompt were reused from a shared prefix, and
    `reasoning_tokens` of those written are no part of the answer's text.

    `estimated` marks counts that were made of the text: the model's side reported no tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
        )


class TopLogprob(Wire):
    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


class TokenLogprob(Wire):
    """The natural-log probability of one emitted token, and of the likeliest alternatives."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top_logprobs: tuple[TopLogprob, ...] = ()


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error"]
"""With `length` and `content_filter` the text is cut off."""


class Step(Wire):
    """One step of a run that is over, as `orchestra ask --json` shows it. With `tool` it is no generation:
    the agent used that. One that failed has its `error`, one that its pattern stopped the finish_reason
    `cancelled`: their text and usage are what came until then."""

    name: str
    agent: str
    tool: str = ""
    node: str = ""
    model: str = ""
    text: str = ""
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    seconds: float = 0.0
    error: ErrorBody | None = None

    @property
    def discarded(self) -> bool:
        """Whether what it wrote is in no answer."""
        return self.error is not None or self.finish_reason == "cancelled"


class Accounts(Wire):
    """Tokens of a run by model, and those of them that steps used which failed or were stopped."""

    by_model: dict[str, Usage] = {}
    discarded: Usage = Usage()


class Chunk(Wire):
    """A piece of streamed answer. `seq` counts up from 0 without a gap within a stream. `reasoning` is what
    the model thinks beside its answer; it comes before `text`.

    With `replaces` above 0 the text takes the place of all before it. An answer that is not streamed holds
    nothing of what was before, nor the first `replaces` characters, such as "Correction: "."""

    type: Literal["chunk"] = "chunk"
    seq: int
    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    replaces: int = Field(default=0, ge=0)

    def add_to(self, texts: list[str]) -> None:
        """Add its text to those of an answer that is given whole."""
        if self.replaces:
            texts.clear()
        texts.append(self.text[self.replaces :])


class Vectors(Wire):
    """Embeddings of `inputs[index : index + len(vectors)]`, each base64 of little-endian float32."""

    type: Literal["vectors"] = "vectors"
    seq: int
    index: int
    vectors: tuple[str, ...]


class Progress(Wire):
    """What a run is doing, for people who watch. `step` is set when a step has finished."""

    type: Literal["progress"] = "progress"
    seq: int
    text: str
    step: Step | None = None


class Ended(Wire):
    """The last event of a stream, always sent, whatever happened. `writing_s` are the seconds since the first
    one, by whoever wrote both. `notes`, `report` and `accounts` are of a run: what the caller should know of
    the answer, what the pattern found beside it, and who used the tokens of `usage`. `calls` come whole and
    only here, so that a generation which moves to another node writes them anew; so does a `refusal`, the
    model's own words for not answering."""

    type: Literal["ended"] = "ended"
    seq: int
    finish_reason: FinishReason
    usage: Usage = Usage()
    node: str = ""
    model: str = ""
    steps: tuple[Step, ...] = ()
    error: ErrorBody | None = None
    trace_id: str = ""
    writing_s: float = 0.0
    notes: tuple[str, ...] = ()
    report: dict[str, Any] = {}
    accounts: Accounts | None = None
    calls: tuple[ToolCall, ...] = ()
    refusal: str = ""


Event = Annotated[Chunk | Vectors | Progress | Ended, Field(discriminator="type")]
EVENT: TypeAdapter[Chunk | Vectors | Progress | Ended] = TypeAdapter(Event)
"""Decodes one event from JSON bytes."""


class ModelCard(Wire):
    """A model as a node advertises it. `parameters` and `memory_bytes` of 0 mean unknown.

    One that is not `loaded` is offered: the first generation has it loaded, in about `load_s` seconds,
    which is 0 where that is not known or never needed.
    """

    name: str
    kind: Literal["chat", "embedding"] = "chat"
    context_tokens: int = 0
    parameters: int = 0
    memory_bytes: int = 0
    loaded: bool = True
    load_s: float = 0.0


class LoadModel(Wire):
    """Have a node load a model that it offers.

    With `ahead` nobody waits for it yet: only those `leaving` make room for it, and none that is in use.
    """

    model: str
    ahead: bool = False
    leaving: tuple[str, ...] = ()


class UnloadModel(Wire):
    """Have a node free the memory of a model, once nothing runs on it."""

    model: str


class Residence(Wire):
    """What a node answers to the two: whether the model is in memory now, and how long it took to be so."""

    node: str
    model: str
    loaded: bool
    changed: bool
    seconds: float = 0.0


class MemoryUse(Wire):
    """A node's memory for models. `limit_bytes` of 0 is no limit.

    `claims` are models whose generations were refused just now because what is in memory was in use. A swap
    is a load that another model had to be unloaded for.

    Generations found their model in memory (`hits`), had to wait for it (`cold`), or would have had to, were
    it not loaded ahead (`warmed`).
    """

    limit_bytes: int = 0
    claims: tuple[str, ...] = ()
    loads: int = 0
    unloads: int = 0
    swaps: int = 0
    cold: int = 0
    warmed: int = 0
    hits: int = 0


class Hardware(Wire):
    """What a node runs on. `provider` says what executes the model, as the backend names it."""

    cores: int
    memory_bytes: int
    provider: str
    accelerators: tuple[str, ...] = ()


class ModelRates(Wire):
    """How fast a node runs one of its models, in seconds: the first token comes after `first_s` and
    `prompt_token_s` for each prompt token that was not cached, each further one after `token_s` and
    `token_s_per_other` for each other generation at work.

    `samples` generations were measured. `error_rate` is the share of the latest that failed; `slowdown`
    says how many times as long the very latest took as the others let one expect.
    """

    samples: int = 0
    first_s: float = 0.0
    prompt_token_s: float = 0.0
    token_s: float = 0.0
    token_s_per_other: float = 0.0
    error_rate: float = 0.0
    slowdown: float = 1.0


class NodeInfo(Wire):
    """A node's leased entry in the registry: who it is, what it serves and how busy it is.

    `slots` bounds the generations at work at once; `running` are at work now.
    """

    id: str
    backend: str
    models: tuple[ModelCard, ...]
    hardware: Hardware
    labels: dict[str, str] = {}
    rates: dict[str, ModelRates] = {}
    """By model, those that were measured."""
    left_out: dict[str, str] = {}
    """Models that it should serve and cannot load, and why."""
    memory: MemoryUse = MemoryUse()
    slots: int
    running: int = 0
    draining: bool = False
    started_at: float = 0.0
    heartbeat_at: float = 0.0

    def serves(self, model: str) -> bool:
        return any(card.name == model for card in self.models)

    @property
    def free_slots(self) -> int:
        return 0 if self.draining else max(0, self.slots - self.running)
