"""Rows of many data sets become messages of one form."""

from __future__ import annotations

from typing import Any

import pytest

from reap_tools.chat import alpaca_messages, messages_from, prompt_messages, tools_from, xlam_messages
from reap_tools.documents import Renderer, guess_format
from reap_tools.errors import RowError
from reap_tools.settings import Amount, Source
from reap_tools.template import ChatTemplate


def test_openai_tool_calls() -> None:
    given = [
        {"role": "user", "content": [{"type": "text", "text": "Is it "}, "raining?"], "name": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "index": None, "function": {"name": "f", "arguments": '{"x": [1, "ü"]}'}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "yes", "tool_calls": []},
    ]
    assert messages_from(given) == [
        {"role": "user", "content": "Is it raining?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": [1, "ü"]}}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "yes"},
    ]


def test_messages_in_other_clothes() -> None:
    expected = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert messages_from([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]) == expected
    assert messages_from('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]') == expected
    assert prompt_messages({"prompt": "a", "completion": "b"}) == expected
    assert alpaca_messages({"instruction": "a", "input": "", "output": "b"}) == expected
    assert alpaca_messages({"instruction": "a", "input": "c", "output": "b", "system": "s"}) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\n\nc"},
        expected[1],
    ]


def test_tool_calls_as_answers() -> None:
    row = {"query": "q", "answers": '[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]'}
    user, answer = xlam_messages(row)
    assert user == {"role": "user", "content": "q"}
    assert [call["function"] for call in answer["tool_calls"]] == [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "g", "arguments": {}},
    ]
    assert tools_from('[{"name": "f", "parameters": {}}]') == [
        {"type": "function", "function": {"name": "f", "parameters": {}}}
    ]
    assert tools_from("[]") is None and tools_from(None) is None and tools_from("") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("not json", "messages is text, but not JSON"),
        ({}, "messages has to be a list"),
        ([], "messages is an empty list"),
        (["x"], r"messages\[0\] has to be an object"),
        ([{"content": "x"}], r"messages\[0\] has no role"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content has to be text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "part of type image_url; only text"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "tool_calls has to be a list"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], r"tool_calls\[0\] has no function name"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "["}]}], "arguments is text, but not JSON"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}], "arguments has to be an object"),
    ],
)
def test_messages_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        messages_from(value)


def test_a_system_field_stands_in_front() -> None:
    chat = [{"from": "human", "value": "a"}]
    template = ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }} {% endfor %}", "test", {})
    renderer = Renderer(Source("p", "d", Amount()), template, None)
    assert renderer({"system": "s", "conversations": chat}).text == "system:s user:a "
    own = [{"from": "system", "value": "own"}, *chat]
    assert renderer({"system": "s", "conversations": own}).text == "system:own user:a "
    assert renderer({"system": None, "conversations": chat}).text == "user:a "


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [], "text": ""}, "messages"),
        ({"conversations": []}, "messages"),
        ({"instruction": "", "output": "", "text": ""}, "alpaca"),
        ({"instruction": "", "response": ""}, "alpaca"),
        ({"query": "", "answers": "", "tools": ""}, "xlam"),
        ({"question": "", "answer": ""}, "prompt"),
        ({"prompt": "", "text": ""}, "text"),
    ],
)
def test_formats_are_told_by_fields(row: dict[str, Any], expected: str) -> None:
    assert guess_format(row) == expected


def test_fields_that_say_nothing() -> None:
    with pytest.raises(RowError, match="name one with --field: body, title"):
        guess_format({"title": "", "body": ""})


@pytest.mark.parametrize(
    ("row", "how", "message"),
    [
        ({"text": " \n"}, {}, "is empty"),
        ("", {}, "is empty"),
        ({"text": "\ud800"}, {}, "lone surrogate"),
        ({"text": 3}, {}, "field 'text' has to be text"),
        ({"text": "x"}, {"field": "body"}, "has no field 'body'; it has text"),
        ({"text": "x"}, {"field": "body", "format": "text"}, "has no field 'body'; it has text"),
        ("plain", {"format": "messages"}, "is a plain text"),
        ({"messages": [{"role": "user", "content": "x"}]}, {}, "the model has no chat template"),
    ],
)
def test_rows_without_a_document(row: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        Renderer(Source("p", "d", Amount(), **how), None, None)(row)
