"""Conversations as text, and back: TRL's message lists and hh-rlhf's dialogues.

The rule. A prompt that is one user message is its content. Any other is a dialogue: `System: ...`, `User: ...`,
`Assistant: ...`, a blank line between turns, and a last `Assistant:` that asks for the reply. A reply that is one assistant
message is its content; further turns follow it with their labels.

The way back: messages that were read are kept in `columns["conversation"]` and written as they came. A text that never was a
conversation becomes one user message, or, where it is a dialogue (with `Human:` or `User:`), its turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reward_models.preferences.records import RecordError

KEPT = "conversation"  # the column in which messages are kept
ROLES = {"System": "system", "User": "user", "Human": "user", "Assistant": "assistant"}
TURN = re.compile(rf"(?:\A|\n\n)({'|'.join(ROLES)}):(?: |$)")
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

Messages = list[dict[str, Any]]


def messages_of(value: Any, name: str) -> Messages:
    """`value` as messages of a role and a text; other keys are kept.

    Raises:
        RecordError: it is something else.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise RecordError(f"{name} is no conversation. Give a text, or a list of messages, at least one.")
    for message in value:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise RecordError(
                f'{name} holds a message without a text. Give each as {{"role": "user", "content": "..."}}.'
            )
    return [dict(message) for message in value]


def prompt_text(messages: Messages) -> str:
    """The text of a prompt, by the rule above."""
    if [message["role"] for message in messages] == ["user"]:
        return str(messages[0]["content"])
    cue = [] if messages[-1]["role"] == "assistant" else ["Assistant:"]
    return "\n\n".join([*map(_turn, messages), *cue])


def reply_text(messages: Messages) -> str:
    """The text of a reply, by the rule above."""
    return "\n\n".join(map(_turn, messages)).removeprefix("Assistant: ")


def conversation(
    prompt: str, responses: Iterable[str], kept: Mapping[str, Any] | None
) -> tuple[Messages, list[Messages]]:
    """The messages of a prompt and of its replies: those that were kept where they say this text, else made of the text."""
    kept = kept or {}
    turns = _turns(prompt)
    asked = kept.get("prompt")
    if not asked or prompt_text(asked) != prompt:
        asked = turns or [{"role": "user", "content": prompt}]
    replies = {reply_text(reply): reply for reply in kept.get("replies", ())}

    def reply(text: str) -> Messages:
        # A dialogue leaves a space between "Assistant:" and the reply that is no part of the reply.
        content = text.removeprefix(" ") if turns else text
        return replies.get(text) or [{"role": "assistant", "content": content}]

    return asked, [reply(text) for text in responses]


def split_conversations(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """The prompt that two conversations share, and how each goes on (TRL's implicit prompt).

    Raises:
        RecordError: they share nothing, or one has nothing beyond it.
    """
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1]):
        if one != other:
            break
        shared += 1
    if not shared:
        raise RecordError(
            "chosen and rejected begin with different messages, and there is no prompt. Add the prompt."
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The prompt that two texts share, and how each goes on: at an hh-rlhf dialogue's last shared `Assistant:`, else where
    they first differ (TRL's implicit prompt; a space there belongs to the replies).

    Raises:
        RecordError: nothing tells where the prompt ends.
    """
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), None)
    if chosen.startswith(HUMAN) and rejected.startswith(HUMAN):
        end = chosen.rfind(ASSISTANT, 0, min(len(chosen), len(rejected)) if shared is None else shared)
        if end < 0:
            raise RecordError(f"The dialogues share no {ASSISTANT!r}. Give each one to the end of its reply.")
        end += len(ASSISTANT)
    elif shared is None:
        raise RecordError(
            "chosen and rejected do not differ, and there is no prompt, so where it ends cannot be known. Add the prompt."
        )
    else:
        end = shared - 1 if shared and chosen[shared - 1] == " " else shared
    return chosen[:end], chosen[end:], rejected[end:]


def dialogue(prompt: str, response: str) -> str:
    """The full dialogue as hh-rlhf has it: `\\n\\nHuman: ...\\n\\nAssistant: ...`."""
    if prompt.startswith("Human:"):
        prompt = "\n\n" + prompt
    if not (prompt.startswith(HUMAN) and prompt.endswith(ASSISTANT)):
        turns = _turns(prompt) or [{"role": "user", "content": prompt}]
        labels = {"system": "System", "user": "Human", "assistant": "Assistant"}
        prompt = "".join(f"\n\n{labels[turn['role']]}: {turn['content']}" for turn in turns) + ASSISTANT
    return prompt + (response if response.startswith(" ") or not response else f" {response}")


def _turn(message: Mapping[str, Any]) -> str:
    return f"{message['role'].capitalize()}: {message['content']}"


def _turns(text: str) -> Messages:
    """The turns of a dialogue that ends with `Assistant:`; none where `text` is something else."""
    text = text.removeprefix("\n\n")
    if not text.endswith(ASSISTANT) or not TURN.match(text):
        return []
    parts = TURN.split(text)[1:-2]  # label, content, label, content, ..., without the last "Assistant", ""
    return [{"role": ROLES[label], "content": content} for label, content in zip(parts[::2], parts[1::2])]
