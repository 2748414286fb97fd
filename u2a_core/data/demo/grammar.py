"""The seeded grammar of the demo corpus: topics and sentence patterns (TOML) become preference pairs.

Pair i of a seed depends only on the seed and on pairs before it, so a longer corpus starts with the shorter one.
A sentence is good or bad by construction: a chosen response holds only good ones, the spans of the bad ones are kept.
"""

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from u2a_core.data.pairs import Message, PreferencePair
from u2a_core.errors import DataError

RECIPE_VERSION = 1
TASKS = ("harmlessness", "helpfulness", "truthfulness")
RESPONSE_WORDS = (20, 50)  # inclusive bounds
PLANTED_TAG = "planted:near-duplicate"

_PLANTED_SHARE = 0.08
_HOUSE_SHARE = 0.4  # chosen responses that are the topic's house answer, which planted negatives repeat
_SIZES = {2: 2, 3: 5, 4: 4, 5: 2}  # sentences in a response: relative frequency
_LEAST_CORE = {"harmlessness": 2, "helpfulness": 3, "truthfulness": 2}  # content sentences of a chosen response
_FIXED = {"steps": 2, "tips": 1, "facts": 1}  # clauses at the start of a group without which an answer is no answer
_PROMPT_TRIES = 50
_RESPONSE_TRIES = 500


@dataclass(frozen=True)
class Topic:
    """The authored content of one topic; `good` maps a group (`warn`, `better`, `steps`, ...) to its clauses in order.

    Clauses start in lower case and have no final mark; `phrase` completes the task's shared questions.
    """

    task: str
    key: str
    thing: str
    phrase: str
    verdict: str | None
    asks: tuple[str, ...]
    contexts: tuple[str, ...]
    good: Mapping[str, tuple[str, ...]]
    bad: tuple[str, ...]

    def mentions(self, word: str) -> bool:
        """Whether the topic's questions speak of a person already, who would be confused with the prompt's own."""
        return any(word in text for text in (self.thing, self.phrase, *self.asks, *self.contexts))


@dataclass(frozen=True)
class Patterns:
    """The sentence patterns of one task; openers may depend on the topic's verdict."""

    asks: tuple[str, ...]
    intros: tuple[str, ...]
    framings: tuple[str, ...]
    house_openers: Mapping[str | None, tuple[str, ...]]
    good_openers: Mapping[str | None, tuple[str, ...]]
    good_closings: tuple[str, ...]
    leads: Mapping[str, Mapping[str, tuple[str, ...]]]
    bad_openers: tuple[str, ...]
    bad_leads: tuple[str, ...]
    bad_closings: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One sentence before its lead is chosen; `group` is None where `text` is a whole sentence already."""

    text: str
    group: str | None = None
    bad: bool = False


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _openers(table: Mapping[str, Any], name: str) -> dict[str | None, tuple[str, ...]]:
    by_verdict = table.get(f"{name}_by_verdict")
    return {None: tuple(table[name])} if by_verdict is None else {key: tuple(by_verdict[key]) for key in by_verdict}


@cache
def load_topics() -> tuple[Topic, ...]:
    """All topics of the three tasks, in the order of the files."""
    return tuple(
        Topic(
            task=task,
            key=row["key"],
            thing=row["thing"],
            phrase=row["phrase"],
            verdict=row.get("verdict"),
            asks=tuple(row["asks"]),
            contexts=tuple(row["contexts"]),
            good={group: tuple(clauses) for group, clauses in row["good"].items()},
            bad=tuple(row["bad"]),
        )
        for task in TASKS
        for row in _read(f"{task}.toml")["topic"]
    )


@cache
def load_patterns(task: str) -> Patterns:
    """The sentence patterns of a task."""
    table = _read("patterns.toml")[task]
    return Patterns(
        asks=tuple(table["asks"]),
        intros=tuple(table["intros"]),
        framings=tuple(table["framings"]),
        house_openers=_openers(table, "house_openers"),
        good_openers=_openers(table, "good_openers"),
        good_closings=tuple(table["good_closings"]),
        leads={
            group: {place: tuple(leads) for place, leads in places.items()} for group, places in table["leads"].items()
        },
        bad_openers=tuple(table["bad_openers"]),
        bad_leads=tuple(table["bad_leads"]),
        bad_closings=tuple(table["bad_closings"]),
    )


@cache
def _prompt_slots() -> tuple[tuple[str, ...], tuple[str, ...]]:
    table = _read("patterns.toml")
    return tuple(table["people"]), tuple(table["times"])


def _generator(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 (reproducible text, not a secret)


def draw_prompt(rng: random.Random, topic: Topic) -> str:
    """A question about the topic: introduction, context and closing remark may each be missing."""
    patterns = load_patterns(topic.task)
    people, times = _prompt_slots()
    person = rng.choice([person for person in people if not topic.mentions(person)])
    time = rng.choice(times)
    sentences = [
        rng.choice(patterns.intros) if rng.random() < 0.65 else "",
        rng.choice(topic.contexts) if rng.random() < 0.5 else "",
        rng.choice(topic.asks if rng.random() < 0.5 else patterns.asks),
        rng.choice(patterns.framings) if rng.random() < 0.5 else "",
    ]
    text = " ".join(sentence for sentence in sentences if sentence)
    return text.format(person=person, time=time, thing=topic.thing, phrase=topic.phrase)


def _core(rng: random.Random, topic: Topic, count: int) -> list[Part]:
    """`count` good clauses, shared out over the topic's groups, each in its own order (see `_FIXED`)."""
    groups = list(topic.good)
    share, rest = divmod(count, len(groups))
    longer = set(rng.sample(groups, rest))
    parts: list[Part] = []
    for group in groups:
        clauses = topic.good[group]
        size = share + (group in longer)
        fixed = range(min(size, _FIXED.get(group, 0)))
        kept = [*fixed, *sorted(rng.sample(range(len(fixed), len(clauses)), size - len(fixed)))]
        parts += [Part(clauses[place], group) for place in kept]
    return parts


def _free_answer(rng: random.Random, topic: Topic, size: int, least: int = 2) -> list[Part]:
    """A good answer of `size` sentences; opener and closing only where `least` core sentences are left."""
    patterns = load_patterns(topic.task)
    opener = size > least and (size == 5 or rng.random() < 0.5)
    closing = size > least + opener and rng.random() < 0.4
    parts = _core(rng, topic, size - opener - closing)
    if opener:
        parts.insert(0, Part(rng.choice(patterns.good_openers[topic.verdict])))
    if closing:
        parts.append(Part(rng.choice(patterns.good_closings)))
    return parts


def _house_answer(rng: random.Random, topic: Topic) -> list[Part]:
    """The topic's usual answer: always the same three clauses after a short opener that varies by a word or two."""
    core = [Part(text, group) for group, clauses in topic.good.items() for text in clauses]
    if len(topic.good) > 1:  # one clause of the first group, two of the second
        first, second = topic.good
        core = [part for part in core if part.group == first][:1] + [part for part in core if part.group == second]
    return [Part(rng.choice(load_patterns(topic.task).house_openers[topic.verdict])), *core[:3]]


def _spoil(rng: random.Random, topic: Topic, parts: Sequence[Part]) -> list[Part]:
    """Replace k of m sentences, k uniform on 1..m, by bad ones."""
    patterns = load_patterns(topic.task)
    places = sorted(rng.sample(range(len(parts)), rng.randint(1, len(parts))))
    clauses = rng.sample(topic.bad, len(topic.bad))
    spoilt = list(parts)
    for place in places:
        if place == 0 and rng.random() < 0.3:
            spoilt[place] = Part(rng.choice(patterns.bad_openers), bad=True)
        elif not clauses or (place == len(parts) - 1 and rng.random() < 0.3):
            spoilt[place] = Part(rng.choice(patterns.bad_closings), bad=True)
        else:
            spoilt[place] = Part(clauses.pop(), group="bad", bad=True)
    return spoilt


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _render(rng: random.Random, topic: Topic, parts: Sequence[Part]) -> list[Part]:
    """Give every clause a lead of its group, where possible one whose first word has not begun a sentence yet."""
    patterns = load_patterns(topic.task)
    begun: set[str] = set()
    rendered: list[Part] = []
    for part in parts:
        text = part.text.format(thing=topic.thing)
        begun_with = {earlier.text.split()[0] for earlier in rendered}
        if part.group is not None:
            place = "later" if part.group in begun else "first"
            leads = patterns.bad_leads if part.bad else patterns.leads[part.group][place]
            lead = rng.choice([lead for lead in leads if lead.split()[0] not in begun_with] or leads)
            begun.add(part.group)
            text = lead.format(text=text)
        rendered.append(replace(part, text=_sentence(text)))
    return rendered


def _join(parts: Sequence[Part]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The response and the character spans [start, end) of its bad sentences."""
    text, spans = "", []
    for part in parts:
        text += " " if text else ""
        if part.bad:
            spans.append((len(text), len(text) + len(part.text)))
        text += part.text
    return text, tuple(spans)


def _fits(text: str) -> bool:
    shortest, longest = RESPONSE_WORDS
    return shortest <= len(text.split()) <= longest


def _response(rng: random.Random, topic: Topic, kind: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A `house`, `free` or `spoilt` response within `RESPONSE_WORDS`, and the spans of its bad sentences."""
    for _ in range(_RESPONSE_TRIES):
        if kind == "house":
            parts = _house_answer(rng, topic)
        else:
            size = rng.choices(list(_SIZES), list(_SIZES.values()))[0]
            if kind == "spoilt":
                parts = _spoil(rng, topic, _free_answer(rng, topic, size))
            else:
                least = _LEAST_CORE[topic.task]
                parts = _free_answer(rng, topic, max(size, least), least)
        text, spans = _join(_render(rng, topic, parts))
        if _fits(text):
            return text, spans
    raise DataError(f"Demo topic {topic.key!r} has no {kind} response of 20 to 50 words; change its sentences.")


def _pair(rng: random.Random, topic: Topic, prompt: str, source: str) -> PreferencePair:
    planted = rng.random() < _PLANTED_SHARE
    house = not planted and rng.random() < _HOUSE_SHARE
    chosen, _ = _response(rng, topic, "house" if house else "free")
    rejected, spans = _response(rng, topic, "house" if planted else "spoilt")
    bad_characters = sum(end - start for start, end in spans)
    return PreferencePair(
        prompt=(Message("user", prompt),),
        chosen=chosen,
        rejected=rejected,
        source=source,
        category=topic.task,
        severity=round(bad_characters / len(rejected), 4),
        tags=(f"topic:{topic.key}", PLANTED_TAG) if planted else (f"topic:{topic.key}",),
        low_reward_spans=spans,
    )


def generate(count: int, seed: int) -> list[PreferencePair]:
    """`count` pairs; every topic comes once in each run of as many pairs as there are topics."""
    if count < 0:
        raise DataError(f"The demo corpus cannot have {count} pairs; ask for 0 or more.")
    pairs: list[PreferencePair] = []
    seen: set[str] = set()
    order: list[Topic] = []
    for index in range(count):
        if not order:
            order = list(load_topics())
            _generator(f"{seed}:topics:{index}").shuffle(order)
        topic = order.pop()
        rng = _generator(f"{seed}:{index}")
        for _ in range(_PROMPT_TRIES):
            prompt = draw_prompt(rng, topic)
            if prompt.casefold() not in seen:
                break
        seen.add(prompt.casefold())
        pairs.append(_pair(rng, topic, prompt, f"demo:{index + 1}"))
    return pairs
