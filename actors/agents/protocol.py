"""The Synadia Agent Protocol 0.3 as our agents speak it: what comes in, what goes out, what is advertised."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from actors import __version__
from actors.agents.messages import AskStatus, Heartbeat, Prompt
from actors.bus.bus import Message
from actors.runtime.service import ServiceInfo, invalid_request
from orchestration.errors import InvalidRequest

SERVICE = "agents"
"""Every agent's service has this name, and its endpoints this queue group."""
AGENT = "orchestra"
PROTOCOL = "0.3"


class _Envelope(BaseModel):
    """A request's body where it is JSON; fields we do not know are allowed."""

    model_config = ConfigDict(strict=True)

    prompt: str
    attachments: list[dict[str, Any]] | None = None


def decode_prompt(message: Message) -> Prompt:
    """The prompt in plain UTF-8, or in JSON where the first character is `{`.

    Raises `InvalidRequest` for an empty prompt, attachments, and anything else that is not a prompt.
    """
    body = message.data.strip()
    if body.startswith(b"{"):
        try:
            envelope = _Envelope.model_validate_json(body)
        except ValidationError as error:
            raise invalid_request(error) from error
        if envelope.attachments:
            raise InvalidRequest(
                f"this agent takes no attachments, and got {len(envelope.attachments)}", param="attachments"
            )
        text = envelope.prompt
    else:
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest("the prompt is neither JSON nor UTF-8 text", param="prompt") from error
    if not text.strip():
        raise InvalidRequest("the prompt is empty", param="prompt")
    return Prompt(text)


def decode_status(message: Message) -> AskStatus:
    """Whatever the body says."""
    return AskStatus()


def service_info(cluster: str, name: str, description: str) -> ServiceInfo:
    return ServiceInfo(
        name=SERVICE,
        version=__version__,
        description=description,
        metadata={"agent": AGENT, "owner": cluster, "session": name, "protocol_version": PROTOCOL},
    )


def prompt_metadata(max_payload_bytes: int) -> dict[str, str]:
    """Metadata of the `prompt` endpoint; sizes as the protocol writes them."""
    mebibytes = max_payload_bytes // 2**20
    size = f"{mebibytes}MB" if mebibytes else f"{max_payload_bytes}B"
    return {"max_payload": size, "attachments_ok": "false"}


def heartbeat(cluster: str, name: str, instance_id: str, interval_s: int) -> Heartbeat:
    """A sign of life as of now."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Heartbeat(
        agent=AGENT, owner=cluster, session=name, instance_id=instance_id, ts=now, interval_s=interval_s
    )
