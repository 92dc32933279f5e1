"""Roles: the file, overrides, and which model a step gets."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from actors.agents.settings import AgentsSettings
from orchestration.errors import InvalidRequest, NoNode, UnknownModel
from orchestration.messages import ChatMessage, ModelCard, Sampling
from orchestration.roles import Role, RoleSampling, built_in_roles, choose_model, load_roles

CARDS = {
    "small": ModelCard(name="small", parameters=100),
    "large": ModelCard(name="large", parameters=900),
    "vectors": ModelCard(name="vectors", kind="embedding", parameters=10_000),
}


def test_the_file_holds_the_coordinator_and_the_five_specialists() -> None:
    roles = load_roles()
    assert list(roles) == ["coordinator", "research", "reasoning", "creative", "code", "critic"]
    assert len({role.prompt for role in roles.values()}) == 6
    for role in roles.values():
        assert role.sampling.temperature is not None


def test_an_override_changes_only_the_fields_that_it_names() -> None:
    roles = load_roles({"critic": {"prompt": "Be strict.", "sampling": {"temperature": 0.7}}})
    built_in = built_in_roles()["critic"]
    assert roles["critic"].prompt == "Be strict."
    assert roles["critic"].description == built_in.description
    assert roles["critic"].sampling.temperature == 0.7
    assert roles["critic"].sampling.top_p == built_in.sampling.top_p
    assert roles["code"] == built_in_roles()["code"]
    assert built_in_roles()["critic"] is built_in


def test_only_small_models_get_the_parameters_and_the_wish_for_short_answers() -> None:
    for role in built_in_roles().values():
        assert role.sampling_of(small=True) == role.sampling
        assert role.sampling_of(small=False).model_dump(exclude_none=True, exclude_defaults=True) == {}
        (said,) = role.before((), small=False)
        assert not {"brief", "briefly", "short"} & set(said.content.lower().replace(",", "").split())
    critic = load_roles({"critic": {"prompt": "Be brief.", "sampling": {"temperature": 0.7}}})["critic"]
    assert critic.sampling_of(small=False) == RoleSampling(temperature=0.7)
    assert critic.before((), small=False)[0].content == "Be brief."


def test_an_unknown_role_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(
        InvalidRequest, match="no role 'wizard'; the roles are coordinator, research"
    ) as caught:
        load_roles({"wizard": {"prompt": "x"}})
    assert caught.value.param == "agents.roles.wizard"
    with pytest.raises(ValidationError, match="no role 'wizard'; the roles are coordinator"):
        AgentsSettings.model_validate({"roles": {"wizard": {"prompt": "x"}}})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"promt": "x"}, "agents.roles.critic.promt"),
        ({"prompt": ""}, "agents.roles.critic.prompt"),
        ({"sampling": {"temprature": 1}}, "agents.roles.critic.sampling.temprature"),
        ({"sampling": {"temperature": 9}}, "agents.roles.critic.sampling.temperature"),
    ],
)
def test_a_wrong_field_of_a_role_is_refused_by_its_name(fields: dict[str, object], where: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load_roles({"critic": fields})
    assert caught.value.param == where
    with pytest.raises(ValidationError):
        AgentsSettings.model_validate({"roles": {"critic": fields}})


def test_the_role_prompt_comes_first_and_system_messages_become_one() -> None:
    role = Role(name="r", description="d", prompt="You are R.")
    messages = role.before(
        (
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content="Hi"),
            ChatMessage(role="system", content="In French."),
        )
    )
    assert [message.role for message in messages] == ["system", "user"]
    assert messages[0].content == "You are R.\n\nBe brief.\n\nIn French."


def test_what_is_said_goes_over_the_profile() -> None:
    profile = built_in_roles()["creative"].sampling
    sampling = Sampling(temperature=0.0, max_tokens=5).over(profile)
    assert (sampling.temperature, sampling.max_tokens, sampling.top_p) == (0.0, 5, profile.top_p)


def test_the_callers_model_wins_then_the_first_preference_alive_then_the_largest_chat_model() -> None:
    assert choose_model("small", ["large"], CARDS, CARDS) == "small"
    assert choose_model(None, ["gone", "small"], CARDS, CARDS) == "small"
    assert choose_model(None, ["gone"], CARDS, CARDS) == "large"
    assert choose_model(None, ["vectors"], CARDS, CARDS) == "large"


def test_a_model_that_is_not_there_is_told_from_one_that_never_was() -> None:
    alive = {"small": CARDS["small"]}
    with pytest.raises(NoNode, match="'large'"):
        choose_model("large", [], alive, CARDS)
    with pytest.raises(UnknownModel, match="known models: small"):
        choose_model("huge", [], alive, CARDS)
    with pytest.raises(InvalidRequest, match="embedding"):
        choose_model("vectors", [], CARDS, CARDS)
    with pytest.raises(NoNode, match="no live node serves a chat model"):
        choose_model(None, [], {"vectors": CARDS["vectors"]}, CARDS)
