"""From a row to the text that the model would see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reap_tools.chat import (
    alpaca_messages,
    messages_from,
    prompt_messages,
    text_of,
    tools_from,
    with_system,
    xlam_messages,
)
from reap_tools.errors import RowError
from reap_tools.readers import Row
from reap_tools.settings import Source
from reap_tools.template import ChatTemplate

_CHATS = ("messages", "conversations", "conversation")
_TEXTS = ("text", "content")


@dataclass(frozen=True, slots=True)
class Document:
    """Text to tokenise; `chat` when a template wrote it, special tokens included."""

    text: str
    chat: bool


def guess_format(row: dict[str, Any]) -> str:
    """The format that a row's fields speak of."""

    def has(*names: str) -> bool:
        return any(name in row for name in names)

    if has(*_CHATS):
        return "messages"
    if has("instruction") and has("output", "response"):
        return "alpaca"
    if has("query") and has("answers"):
        return "xlam"
    if has("prompt", "question") and has("completion", "response", "answer"):
        return "prompt"
    if has(*_TEXTS):
        return "text"
    fields = ", ".join(sorted(map(str, row))) or "none"
    raise RowError(f"no field is known to hold a text or a conversation; name one with --field: {fields}")


class Renderer:
    """Turns the rows of one source into documents."""

    def __init__(self, source: Source, template: ChatTemplate | None, tools: list[dict[str, Any]] | None) -> None:
        self._source = source
        self._template = template
        self._tools = tools

    def __call__(self, row: Row) -> Document:
        """The row's document; RowError when it has none."""
        document = self._plain(row) if isinstance(row, str) else self._structured(row)
        if not document.text.strip():
            raise RowError("is empty")
        try:
            document.text.encode()
        except UnicodeEncodeError:
            raise RowError("holds a lone surrogate, which is no valid Unicode") from None
        return document

    def _plain(self, text: str) -> Document:
        if self._source.format not in ("auto", "text"):
            raise RowError(f"is a plain text, but its format is to be '{self._source.format}'")
        return Document(text, chat=False)

    def _structured(self, row: dict[str, Any]) -> Document:
        field, how = self._source.field, self._source.format
        if how == "auto":
            how = guess_format(row) if field is None else "text" if isinstance(row.get(field), str) else "messages"
        if how == "text":
            return Document(text_of(row, *((field,) if field else _TEXTS)), chat=False)
        if how == "messages":
            name = field or next((name for name in _CHATS if name in row), _CHATS[0])
            if name not in row:
                raise RowError(f"has no field '{name}'; it has {', '.join(sorted(map(str, row))) or 'none'}")
            messages = with_system(messages_from(row[name], name), row)
        else:
            messages = {"alpaca": alpaca_messages, "prompt": prompt_messages, "xlam": xlam_messages}[how](row)
        if self._template is None:
            raise RowError(
                "is a conversation, but the model has no chat template: neither chat_template.jinja nor chat_template "
                "in tokenizer_config.json; give one with --template"
            )
        return Document(self._template.render(messages, tools_from(row.get("tools")) or self._tools), chat=True)
