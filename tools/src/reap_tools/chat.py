"""Conversations: what datasets call messages, brought to the form that chat templates expect."""

from __future__ import annotations

import json
from typing import Any

from reap_tools.errors import RowError

Message = dict[str, Any]

# Names that ShareGPT-like datasets use.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
}


def parse_json(value: Any, what: str) -> Any:
    """The value; parsed when it is text, as in datasets whose columns have one type."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RowError(f"{what} is text, but not JSON: {error}") from None


def messages_from(value: Any, what: str = "messages") -> list[Message]:
    """OpenAI-style messages from a list of {role, content, ...} or {from, value}."""
    value = parse_json(value, what)
    if not isinstance(value, list):
        raise RowError(f"{what} has to be a list of messages")
    if not value:
        raise RowError(f"{what} is an empty list")
    return [_message(item, f"{what}[{i}]") for i, item in enumerate(value)]


def _message(item: Any, what: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(f"{what} has to be an object with role and content")
    role = item.get("role", item.get("from"))
    if not isinstance(role, str) or not role:
        raise RowError(f"{what} has no role")
    # A null says the same as a missing key; content is there for the templates that add it to other text.
    message: Message = {key: part for key, part in item.items() if part is not None and key not in ("from", "value")}
    message["role"] = _ROLES.get(role, role)
    message["content"] = _content(item.get("content", item.get("value")), what)
    if calls := parse_json(message.get("tool_calls"), f"{what}.tool_calls"):
        if not isinstance(calls, list):
            raise RowError(f"{what}.tool_calls has to be a list")
        message["tool_calls"] = [_tool_call(call, f"{what}.tool_calls[{i}]") for i, call in enumerate(calls)]
    else:
        message.pop("tool_calls", None)
    return message


def _content(value: Any, what: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text_part(part, what) for part in value)
    raise RowError(f"{what}.content has to be text or a list of text parts")


def _text_part(part: Any, what: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, dict) else None
    raise RowError(f"{what}.content has a part of type {kind or type(part).__name__}; only text can be calibrated with")


def _tool_call(call: Any, what: str) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "arguments": object}}, also from the bare inner object."""
    if not isinstance(call, dict):
        raise RowError(f"{what} has to be an object")
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{what} has no function name")
    arguments = parse_json(function.get("arguments") or {}, f"{what}.arguments")
    if not isinstance(arguments, dict):
        raise RowError(f"{what}.arguments has to be an object")
    outer = {} if function is call else {key: part for key, part in call.items() if part is not None}
    return outer | {"type": "function", "function": function | {"arguments": arguments}}


def tools_from(value: Any, what: str = "tools") -> list[dict[str, Any]] | None:
    """Tool descriptions in the form {"type": "function", "function": {...}}; None when there are none."""
    value = parse_json(value, what) if value else None
    if not value:
        return None
    if not isinstance(value, list):
        raise RowError(f"{what} has to be a list")
    tools = []
    for i, tool in enumerate(value):
        if not isinstance(tool, dict) or not isinstance(tool.get("function", tool), dict):
            raise RowError(f"{what}[{i}] has to be an object")
        tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tools


def with_system(messages: list[Message], row: dict[str, Any]) -> list[Message]:
    """Messages with the row's field `system` in front, unless they bring a system message of their own."""
    if not row.get("system") or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": text_of(row, "system")}, *messages]


def text_of(row: dict[str, Any], *names: str) -> str:
    """The text in the first of these fields that the row has."""
    for name in names:
        if name in row:
            if not isinstance(row[name], str):
                raise RowError(f"field '{name}' has to be text")
            return str(row[name])
    raise RowError(f"has no field '{names[0]}'; it has {', '.join(sorted(map(str, row))) or 'none'}")


def alpaca_messages(row: dict[str, Any]) -> list[Message]:
    """instruction, perhaps input, and output (or response)."""
    question = text_of(row, "instruction")
    if row.get("input"):
        question += "\n\n" + text_of(row, "input")
    answer = text_of(row, "output", "response")
    return with_system([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], row)


def prompt_messages(row: dict[str, Any]) -> list[Message]:
    """prompt (or question) and completion (or response, answer)."""
    return [
        {"role": "user", "content": text_of(row, "prompt", "question")},
        {"role": "assistant", "content": text_of(row, "completion", "response", "answer")},
    ]


def xlam_messages(row: dict[str, Any]) -> list[Message]:
    """query and answers: a list of calls, each with name and arguments."""
    calls = parse_json(row.get("answers"), "answers")
    if not isinstance(calls, list) or not calls:
        raise RowError("answers has to be a list of tool calls")
    # Templates that print the ids of calls need some; these are the same on every run.
    tool_calls = [{"id": f"call_{i}"} | _tool_call(call, f"answers[{i}]") for i, call in enumerate(calls)]
    return [
        {"role": "user", "content": text_of(row, "query")},
        {"role": "assistant", "content": "", "tool_calls": tool_calls},
    ]
