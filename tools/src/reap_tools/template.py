"""The checkpoint's own chat template, rendered as transformers renders it."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from reap_tools.errors import BadInputError, RowError, UsageError


class _Generation(jinja2.ext.Extension):
    """{% generation %}, which marks the assistant's text for training: here its content only."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes what is special in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _environment(date: str | None) -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    if date is not None:
        try:
            day = datetime.datetime.strptime(date, "%Y-%m-%d")
        except ValueError:
            raise UsageError(f"--date {date}: has to be a day such as 2025-11-01") from None
        environment.globals["strftime_now"] = day.strftime
    return environment


class ChatTemplate:
    """A compiled template. `strftime_now` is there only when a date is given: the same inputs give the same text."""

    def __init__(
        self, text: str, name: str, variables: dict[str, Any], date: str | None = None, with_tools: str | None = None
    ) -> None:
        self.name = name
        self.sha256 = hashlib.sha256((text + (with_tools or "")).encode()).hexdigest()
        self._variables = variables
        environment = _environment(date)
        try:
            self._plain = environment.from_string(text)
            self._with_tools = self._plain if with_tools is None else environment.from_string(with_tools)
        except jinja2.TemplateSyntaxError as error:
            raise BadInputError(f"{name}: line {error.lineno} of the chat template: {error.message}") from None

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """The whole conversation as text, nothing opened for an answer to come."""
        template = self._with_tools if tools else self._plain
        given = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": False}
        try:
            return template.render(**(self._variables | given))
        except jinja2.UndefinedError as error:
            hint = "; --date gives it a day" if "strftime_now" in str(error) else ""
            raise RowError(f"the chat template fails: {error.message}{hint}") from None
        except jinja2.TemplateError as error:
            raise RowError(f"the chat template refuses it: {error.message or type(error).__name__}") from None
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise RowError(f"the chat template fails: {error}") from None


def load_template(
    model: Path, tokenizer_config: dict[str, Any], override: Path | None, variables: dict[str, Any], date: str | None
) -> ChatTemplate | None:
    """The template of a file given, of chat_template.jinja, or of tokenizer_config.json; None without any."""
    for path in [override] if override else [model / "chat_template.jinja"]:
        if override or path.is_file():
            try:
                return ChatTemplate(path.read_text(encoding="utf-8"), path.name, variables, date)
            except UnicodeDecodeError:
                raise BadInputError(f"{path}: the chat template is not UTF-8") from None
    value = tokenizer_config.get("chat_template")
    name = "tokenizer_config.json"
    if isinstance(value, str):
        return ChatTemplate(value, name, variables, date)
    if isinstance(value, list):  # several, by name; transformers takes these two
        try:
            named = {str(item["name"]): str(item["template"]) for item in value}
        except (TypeError, KeyError):
            raise BadInputError(f"{model / name}: chat_template is a list, but not of name and template") from None
        if "default" in named:
            return ChatTemplate(named["default"], name, variables, date, named.get("tool_use"))
        raise BadInputError(f"{model / name}: of its chat templates none is called default")
    return None
