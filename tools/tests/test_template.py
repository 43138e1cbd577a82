"""Chat templates: what HF templates expect is there, and nothing that makes two runs differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, copy_model

from reap_tools.errors import BadInputError, RowError, UsageError
from reap_tools.template import ChatTemplate, load_template

TOOL = {"type": "function", "function": {"name": "wetter", "description": "für Orte <ü>"}}
CALLS = [{"type": "function", "function": {"name": "wetter", "arguments": {"ort": "Köln", "tage": [1, 2]}}}]
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "Regnet es?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": "ja"},
]


def template(text: str, date: str | None = None, **variables: Any) -> ChatTemplate:
    return ChatTemplate(text, "test", variables, date)


def test_a_template_with_all_that_current_ones_use() -> None:
    text = (DATA / "tools.jinja").read_text()
    assert template(text).render(CHAT, [TOOL]) == (
        '<s>\n<tools>\n{"name": "wetter", "description": "für Orte <ü>"}\n</tools>'
        "<|im_start|>user\nRegnet es?<|im_end|>"
        "<|im_start|>assistant\n<tool_call>wetter ort=Köln tage=[1, 2]</tool_call><|im_end|>"
        "<|im_start|>tool\nja<|im_end|>\n1 calls"
    )
    with pytest.raises(RowError, match="refuses it: unknown role judge"):
        template(text).render([{"role": "judge", "content": ""}], None)


def test_the_date_is_given_or_absent() -> None:
    text = "{{ strftime_now('%d %B %Y') if strftime_now is defined else 'no day' }}"
    assert template(text).render([], None) == "no day"
    assert template(text, "2025-11-01").render([], None) == "01 November 2025"
    with pytest.raises(RowError, match=r"'strftime_now' is undefined; --date gives it a day"):
        template("{{ strftime_now('%Y') }}").render([], None)
    with pytest.raises(UsageError, match="--date today"):
        template(text, "today")


def test_json_is_plain() -> None:
    value = {"b": "<a> & 'ü'", "a": [1, None]}
    assert template("{{ x | tojson }}", x=value).render([], None) == json.dumps(value, ensure_ascii=False)
    assert template("{{ x | tojson(indent=2, sort_keys=True) }}", x=value).render([], None) == json.dumps(
        value, ensure_ascii=False, indent=2, sort_keys=True
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(999999999) %}{% endfor %}", "too big"),
        ("{{ missing.field }}", "'missing' is undefined"),
        ("{{ messages[0].content + 1 }}", "fails"),
        ("{{ missing | tojson }}", "fails"),
        ("{{ 1 / 0 }}", "fails"),
    ],
)
def test_templates_that_fail_or_try_too_much(text: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        template(text).render([{"role": "user", "content": "x"}], None)


def test_a_template_that_is_none() -> None:
    with pytest.raises(BadInputError, match="test: line 2 of the chat template"):
        template("\n{% if %}")


def test_where_templates_are_found(tmp_path: Path) -> None:
    model = copy_model(tmp_path / "model")

    def load(config: dict[str, Any], override: Path | None = None) -> ChatTemplate | None:
        return load_template(model, config, override, {}, None)

    assert load({}) is None
    several = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    found = load({"chat_template": several})
    assert found and (found.render([], None), found.render([], [TOOL])) == ("plain", "tools")
    with pytest.raises(BadInputError, match="none is called default"):
        load({"chat_template": several[1:]})
    (model / "chat_template.jinja").write_text("own file")
    found = load({"chat_template": "config"})
    assert found and found.render([], None) == "own file"
    (tmp_path / "other.jinja").write_text("other")
    found = load({"chat_template": "config"}, tmp_path / "other.jinja")
    assert found and found.render([], None) == "other"


def test_generation_prompts_are_not_opened() -> None:
    assert template("{{ add_generation_prompt }} {{ tools }} {{ documents }}").render([], None) == "False None None"
