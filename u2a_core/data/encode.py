"""Encoding: prompt and response become token ids, by the tokenizer's own chat template where it has one.

Prompt ids and response ids are made apart and joined, so that a response's tokens never depend on where its prompt
ends; the beginning-of-text token occurs at most once, the end-of-text token closes every response and counts as one of
its tokens. Truncation takes from the prompt's left; a response is never cut.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from u2a_core.data.pairs import Message
from u2a_core.errors import DataError, ModelError

Span = tuple[int, int]


@dataclass(frozen=True)
class EncodedResponse:
    """One prompt with its response as token ids.

    `prompt_ids` and `response_ids` follow each other; `token_texts` and `spans` (characters of the response, end
    exclusive) belong to `response_ids`, and are empty for tokens that the template adds. `truncated` counts prompt
    tokens cut.
    """

    id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    token_texts: tuple[str, ...]
    spans: tuple[Span, ...]
    truncated: int

    @property
    def length(self) -> int:
        """Number of tokens, prompt and response."""
        return len(self.prompt_ids) + len(self.response_ids)


class ResponseEncoder:
    """Turns (prompt, response) into `EncodedResponse` with one tokenizer and one maximal length (in tokens)."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if max_length < 2:
            raise DataError(f"--max-length {max_length} leaves no room for a prompt and a response: use at least 2.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        added = (
            tokenizer.added_tokens_decoder.items()
        )  # holds turn tokens that `all_special_ids` does not know (Phi-3's)
        self._special = {*tokenizer.all_special_ids, *(token for token, entry in added if entry.special)}
        self._anchor = self._choose_anchor()

    def encode(self, id: str, prompt: tuple[Message, ...], response: str) -> EncodedResponse:  # noqa: A002
        """Encode one example; `DataError` names it where the response is empty or longer than `max_length` − 1
        tokens.
        """
        if not response.strip():
            raise DataError(f"Example {id} has an empty response; remove it from the data set.")
        prompt_text = self._render(id, prompt, None)
        prompt_ids = self._prompt_ids(prompt_text)
        response_ids, texts, spans = self._response(id, prompt, prompt_text, response)
        room = self.max_length - len(response_ids)
        if room < 1:
            raise DataError(
                f"The response of example {id} has {len(response_ids)} tokens and leaves no room for its prompt "
                f"within {self.max_length}: prepare the bundle with a larger --max-length, or remove the example."
            )
        kept = self._cut(prompt_ids, room)
        return EncodedResponse(id, kept, response_ids, texts, spans, len(prompt_ids) - len(kept))

    def response_length(self, id: str, prompt: tuple[Message, ...], response: str) -> int:  # noqa: A002
        """Number of response tokens, the end-of-text token included."""
        return len(self._response(id, prompt, self._render(id, prompt, None), response)[0])

    def prompt_ids(self, id: str, prompt: tuple[Message, ...]) -> tuple[int, ...]:  # noqa: A002
        """The prompt alone, ready for generation."""
        return self._cut(self._prompt_ids(self._render(id, prompt, None)), self.max_length)

    def _cut(self, prompt_ids: tuple[int, ...], room: int) -> tuple[int, ...]:
        if len(prompt_ids) <= room:
            return prompt_ids
        if room > 1 and prompt_ids[0] == self.tokenizer.bos_token_id:
            return (prompt_ids[0], *prompt_ids[len(prompt_ids) - room + 1 :])
        return prompt_ids[len(prompt_ids) - room :]

    def _render(self, id: str, prompt: tuple[Message, ...], response: str | None) -> str:  # noqa: A002
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
        if response is not None:
            turns.append({"role": "assistant", "content": response})
        if not self.tokenizer.chat_template:
            return plain_transcript(turns, generation=response is None)
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=response is None, enable_thinking=False
            )
        except Exception as error:
            raise ModelError(
                f"The tokenizer's chat template refuses example {id} (roles {[turn['role'] for turn in turns]}): "
                f"{error}. Choose a policy whose template allows these roles, or remove such examples."
            ) from error
        return str(text)

    def _prompt_ids(self, text: str) -> tuple[int, ...]:
        tokenizer = self.tokenizer
        plain = not tokenizer.chat_template
        ids = list(tokenizer(text, add_special_tokens=plain).input_ids)
        while plain and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
        while len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
            ids.pop(0)
        return tuple(ids) or (_beginning(tokenizer),)

    def _response(
        self,
        id: str,  # noqa: A002
        prompt: tuple[Message, ...],
        prompt_text: str,
        response: str,
    ) -> tuple[tuple[int, ...], tuple[str, ...], tuple[Span, ...]]:
        suffix = self._suffix(id, prompt, prompt_text, response)
        ids, offsets = tokenize_with_offsets(self.tokenizer, suffix, self._anchor)
        core = response if response in suffix else response.strip()  # what of the response the template has kept
        start = suffix.find(core)
        shift = response.find(core) - start
        end = start + len(core)
        closing = [k for k, token in enumerate(ids) if token in self._special and offsets[k][0] >= end]
        if closing:
            ids, offsets = ids[: closing[0] + 1], offsets[: closing[0] + 1]
        elif self.tokenizer.eos_token_id is not None:
            ids, offsets = [*ids, self.tokenizer.eos_token_id], [*offsets, (len(suffix), len(suffix))]
        else:
            raise ModelError(
                "The tokenizer has no end-of-text token, and its chat template ends a response with none: set "
                '"eos_token" in its tokenizer_config.json.'
            )
        texts = [suffix[a:b] or _name(self.tokenizer, token) for token, (a, b) in zip(ids, offsets, strict=True)]
        spans = [
            (max(a + shift, 0), max(min(b, end) + shift, 0)) if a < end else (len(response),) * 2 for a, b in offsets
        ]
        return tuple(ids), tuple(texts), tuple(spans)

    def _suffix(self, id: str, prompt: tuple[Message, ...], prompt_text: str, response: str) -> str:  # noqa: A002
        """What follows the prompt; the bare response where the template rewrites its prompt or its content."""
        if not self.tokenizer.chat_template:
            return " " + response
        whole = self._render(id, prompt, response)
        suffix = whole[len(prompt_text) :] if whole.startswith(prompt_text) else ""
        return suffix if response.strip() in suffix else response

    def _choose_anchor(self) -> str:
        """What response tokens are made behind, so that they are those of the whole text tokenized at once.

        Nothing for most tokenizers; a line break where the tokenizer begins every text with a space (sentencepiece).
        """
        prompt = (Message("user", "a"),)
        try:
            prompt_text = self._render("probe", prompt, None)
            whole = self._prompt_ids(self._render("probe", prompt, "b"))
            suffix = self._suffix("probe", prompt, prompt_text, "b")
        except ModelError:  # met again, with a name, when the first such example is encoded
            return ""
        before = self._prompt_ids(prompt_text)
        candidates = ("", "\n")
        joined = ((*before, *tokenize_with_offsets(self.tokenizer, suffix, anchor)[0]) for anchor in candidates)
        return next((anchor for anchor, ids in zip(candidates, joined, strict=True) if ids == whole), "")


def plain_transcript(turns: Iterable[dict[str, str]], generation: bool) -> str:
    """The rendering used where a tokenizer has no chat template: hh-rlhf's `\\n\\nHuman: … \\n\\nAssistant:` turns."""
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    text = "".join(f"\n\n{names.get(turn['role'], turn['role'])}: {turn['content']}" for turn in turns)
    return text + "\n\nAssistant:" if generation else text


def tokenize_with_offsets(tokenizer: Any, text: str, anchor: str = "") -> tuple[list[int], list[Span]]:
    """Token ids with character offsets that never overlap (later pieces of one character are empty).

    The tokens are those that `text` has behind `anchor`, where a token ends between the two. A slow tokenizer has no
    offsets; there the decoded pieces are laid end to end.
    """
    if tokenizer.is_fast:
        encoded = tokenizer(anchor + text, add_special_tokens=False, return_offsets_mapping=True)
        ids, raw = list(encoded.input_ids), encoded.offset_mapping
        if anchor and any(start < len(anchor) < end for start, end in raw):
            return tokenize_with_offsets(tokenizer, text)
        kept = [(token, place) for token, place in zip(ids, raw, strict=True) if place[1] > len(anchor) or not anchor]
        ids, raw = [token for token, _ in kept], [(start - len(anchor), end - len(anchor)) for _, (start, end) in kept]
    else:
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        raw, position = [], 0
        for token in ids:
            piece = len(tokenizer.decode([token]))
            raw.append((position, min(position + piece, len(text))))
            position = raw[-1][1]
    offsets: list[Span] = []
    previous = 0
    for start, end in raw:
        previous = max(previous, min(start, len(text)))
        offsets.append((previous, max(previous, end)))
        previous = offsets[-1][1]
    return ids, offsets


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of at most `budget` tokens with padding, longest first; one longer than the budget stands
    alone.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _beginning(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError(
        "The tokenizer has neither a beginning- nor an end-of-text token, so an empty prompt cannot be encoded."
    )


def _name(tokenizer: Any, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token)) if token in set(tokenizer.all_special_ids) else ""
