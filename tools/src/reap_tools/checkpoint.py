"""What a checkpoint folder says about text: tokenizer, special tokens, chat template, vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers

from reap_tools.errors import BadInputError, UsageError
from reap_tools.readers import file_sha256
from reap_tools.settings import Settings
from reap_tools.template import ChatTemplate, load_template

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def _json_object(path: Path, *, required: bool) -> dict[str, Any]:
    if not required and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInputError(f"{path}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInputError(f"{path}: has to be a JSON object")
    return value


class Checkpoint:
    """The texts' side of a model folder; weights are not looked at."""

    def __init__(self, model: Path, settings: Settings) -> None:
        self.model = model
        self.vocab_size = self._read_vocab_size()
        path = model / "tokenizer.json"
        self.tokenizer_sha256 = file_sha256(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise BadInputError(f"{path}: cannot be read as a tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _json_object(model / "tokenizer_config.json", required=False)
        self._special = self._special_tokens()
        variables = self._special | settings.template_args
        self.template: ChatTemplate | None = load_template(
            model, self._config, settings.template, variables, settings.date
        )

    def _read_vocab_size(self) -> int:
        config = _json_object(self.model / "config.json", required=True)
        inner = config.get("text_config")
        size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
        if not isinstance(size, int) or size < 1:
            raise BadInputError(f"{self.model / 'config.json'}: says no vocab_size")
        return size

    def _special_tokens(self) -> dict[str, Any]:
        """Names and texts of special tokens, for templates and separators."""
        found: dict[str, Any] = {}
        for config in (_json_object(self.model / "special_tokens_map.json", required=False), self._config):
            for name in _SPECIAL:
                value = config.get(name)
                value = value.get("content") if isinstance(value, dict) else value
                if isinstance(value, str):
                    found[name] = value
        return found

    def separator(self, what: str, *, chat: bool) -> list[int]:
        """Token ids between packed rows: `eos`, `none`, `auto` (eos after plain text only), or a token's text."""
        if what == "none" or (what == "auto" and chat):
            return []
        text = self._special.get("eos_token") if what in ("auto", "eos") else what
        if text is None:
            raise BadInputError(
                f"{self.model}: names no eos_token to pack with; give --separator none or a token's text"
            )
        token = self._tokenizer.token_to_id(text)
        if token is None:
            raise UsageError(f"--separator {what}: '{text}' is no token of this tokenizer")
        return [token]

    def encode(self, texts: list[str], *, special_tokens: bool) -> list[list[int]]:
        """Token ids of each text. A chat template has written all special tokens already."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=special_tokens)]

    def decode(self, tokens: list[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))
