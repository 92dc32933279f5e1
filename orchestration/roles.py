"""The roles of the agents: read from `roles.yaml`, overridden by settings."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.errors import InvalidRequest, NoNode, UnknownModel
from orchestration.messages import ChatMessage, ModelCard, Sampling
from orchestration.validation import first_problem


class RoleSampling(Sampling):
    """A role's parameters: `Sampling` that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Role(BaseModel):
    """One agent's. `models` are preferences, best first; empty means any chat model.

    `prompt` and `sampling` are for models that are known to be small. Others get `plain_prompt`, the same
    without a wish for short answers, and of the parameters only those that the deployment `set`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=8_000)
    plain_prompt: str = Field(default="", max_length=8_000)
    """'' where it is `prompt`."""
    sampling: RoleSampling = RoleSampling()
    set: RoleSampling = RoleSampling()
    models: tuple[str, ...] = ()

    def sampling_of(self, *, small: bool) -> RoleSampling:
        """The parameters for a model when neither the caller nor the pattern sets them."""
        return self.sampling if small else self.set

    def before(self, messages: Sequence[ChatMessage], *, small: bool = True) -> tuple[ChatMessage, ...]:
        """`messages` with the role prompt first. System messages are joined into one after the role's prompt,
        because chat templates accept one, and the common beginning is computed once."""
        prompt = self.prompt if small else self.plain_prompt or self.prompt
        system = [prompt, *(message.content for message in messages if message.role == "system")]
        rest = (message for message in messages if message.role != "system")
        return (ChatMessage(role="system", content="\n\n".join(system)), *rest)


class RoleOverride(BaseModel):
    """Changes to a built-in role, for all models. A field that is not set keeps the role's own value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str | None = Field(default=None, min_length=1, max_length=200)
    """Description of the agent in the registry and for planners."""
    prompt: str | None = Field(default=None, min_length=1, max_length=8_000)
    """System prompt of the role."""
    sampling: RoleSampling | None = None
    """Sampling parameters, as in a request: `{temperature = 0.2}`. Others keep the role's values."""
    models: tuple[str, ...] | None = None
    """Preferred models of the role, best first; empty: any chat model."""

    def applied(self, role: Role) -> Role:
        changed = {
            name: getattr(self, name)
            for name in ("description", "prompt", "models")
            if getattr(self, name) is not None
        }
        if self.prompt is not None:
            changed["plain_prompt"] = ""
        if self.sampling is not None:
            changed |= {"sampling": self.sampling.over(role.sampling), "set": self.sampling}
        return role.model_copy(update=changed)


@lru_cache(maxsize=1)
def built_in_roles() -> dict[str, Role]:
    """The roles of `roles.yaml`, in its order."""
    raw = yaml.safe_load(resources.files("orchestration").joinpath("roles.yaml").read_text(encoding="utf-8"))
    return {name: Role(name=name, **fields) for name, fields in raw.items()}


def load_roles(overrides: Mapping[str, RoleOverride | Mapping[str, object]] | None = None) -> dict[str, Role]:
    """The built-in roles with `overrides` by role name applied.

    Raises `InvalidRequest` for a role that does not exist or a field that is wrong, naming it as the
    settings do, `agents.roles.<name>.<field>`.
    """
    roles = dict(built_in_roles())
    for name, fields in (overrides or {}).items():
        role = roles.get(name)
        if role is None:
            known = ", ".join(roles)
            raise InvalidRequest(f"no role {name!r}; the roles are {known}", param=f"agents.roles.{name}")
        try:
            override = (
                fields if isinstance(fields, RoleOverride) else RoleOverride.model_validate(dict(fields))
            )
        except ValidationError as error:
            problem = first_problem(error, under=f"agents.roles.{name}")
            raise InvalidRequest(str(problem), param=problem.where) from error
        roles[name] = override.applied(role)
    return roles


def choose_model(
    wanted: str | None,
    preferences: Sequence[str],
    cards: Mapping[str, ModelCard],
    known: Container[str],
) -> str:
    """The model for a step: the caller's, else the first preference alive, else the largest chat model.

    `cards` are the models alive, `known` those seen at any time. Raises `UnknownModel` for a wanted model
    that no node ever served, `InvalidRequest` for one that does not chat, `NoNode` when none is alive.
    """
    if wanted is not None:
        card = cards.get(wanted)
        if card is None and wanted in known:
            raise NoNode(f"no live node serves model {wanted!r} now", param="model", retry_after_s=2)
        if card is None:
            raise UnknownModel.of(wanted, list(cards))
        if card.kind != "chat":
            raise InvalidRequest(f"model {wanted!r} is for {card.kind}, not for chat", param="model")
        return wanted
    chat = {name: card for name, card in cards.items() if card.kind == "chat"}
    for name in preferences:
        if name in chat:
            return name
    if not chat:
        raise NoNode("no live node serves a chat model; start a node", retry_after_s=2)
    return max(chat, key=lambda name: (chat[name].parameters, name))
