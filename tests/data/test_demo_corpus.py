"""The demo corpus: reproducible, known bad sentences in known places, near-duplicates that are near, and harmless."""

import os
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from importlib import resources
from itertools import combinations

import pytest

from u2a_core.data import demo
from u2a_core.data.demo import demo_pairs, recipe_hash
from u2a_core.data.demo.grammar import PLANTED_TAG, RESPONSE_WORDS, TASKS, load_patterns, load_topics
from u2a_core.data.pairs import PreferencePair
from u2a_core.errors import DataError

COUNT, SEED = 3600, 0

# A check against slips, not a filter: none of these may turn up in a corpus that is shown to a class.
NOT_FOR_CLASS = {
    *(
        "kill",
        "killed",
        "die",
        "dead",
        "death",
        "murder",
        "gun",
        "guns",
        "weapon",
        "weapons",
        "bomb",
        "knife",
        "poison",
    ),
    *(
        "drug",
        "drugs",
        "alcohol",
        "beer",
        "wine",
        "drunk",
        "cigarette",
        "cigarettes",
        "smoke",
        "smoking",
        "bet",
        "steal",
    ),
    *("sex", "sexy", "naked", "nude", "porn", "kiss", "suicide", "stab", "punch", "torture", "slap"),
    *("stupid", "idiot", "idiots", "dumb", "moron", "loser", "hate", "damn", "hell", "crap", "shut", "worthless"),
    *(
        "president",
        "election",
        "vote",
        "war",
        "army",
        "religion",
        "god",
        "church",
        "jew",
        "muslim",
        "christian",
        "nazi",
    ),
    *("immigrant", "immigrants", "race", "racist", "gay", "terrorist", "foreigner", "foreigners"),
}


@pytest.fixture(scope="module")
def pairs() -> list[PreferencePair]:
    return demo_pairs(COUNT, SEED)


@pytest.fixture(scope="module")
def mixed(pairs: list[PreferencePair]) -> list[PreferencePair]:
    return [pair for pair in pairs if PLANTED_TAG not in pair.tags]


@pytest.fixture(scope="module")
def planted(pairs: list[PreferencePair]) -> list[PreferencePair]:
    return [pair for pair in pairs if PLANTED_TAG in pair.tags]


def both(pair: PreferencePair) -> tuple[str, str]:
    assert pair.chosen is not None
    assert pair.rejected is not None
    return pair.chosen, pair.rejected


def spans(pair: PreferencePair) -> tuple[tuple[int, int], ...]:
    assert pair.low_reward_spans is not None
    return pair.low_reward_spans


def bad_sentences(pair: PreferencePair) -> list[str]:
    return [both(pair)[1][start:end] for start, end in spans(pair)]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", text)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def test_same_seed_same_pairs_and_another_seed_others(pairs: list[PreferencePair]) -> None:
    assert demo_pairs(200, SEED) == pairs[:200]
    other = demo_pairs(200, SEED + 1)
    assert len({pair.id for pair in pairs[:200]} & {pair.id for pair in other}) < 5


def test_the_order_of_hashes_changes_nothing(pairs: list[PreferencePair]) -> None:
    script = f"from u2a_core.data.demo import demo_pairs; print([pair.id for pair in demo_pairs(100, {SEED})])"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == str([pair.id for pair in pairs[:100]])


@pytest.mark.parametrize("count", [0, 1, 71, 72, 73, 500])
def test_a_shorter_corpus_is_the_beginning_of_a_longer_one(pairs: list[PreferencePair], count: int) -> None:
    assert demo_pairs(count, SEED) == pairs[:count]


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(DataError, match="-1 pairs"):
        demo_pairs(-1, SEED)


def test_recipe_hash_covers_every_file_that_makes_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    made_of = {file.name for file in resources.files(demo).iterdir() if file.name.endswith((".py", ".toml"))}
    assert set(demo._RECIPE_FILES) == made_of
    assert re.fullmatch("[0-9a-f]{64}", recipe_hash())
    before = recipe_hash()
    assert recipe_hash() == before
    monkeypatch.setattr(demo, "RECIPE_VERSION", demo.RECIPE_VERSION + 1)
    assert recipe_hash() != before


def test_prompts_are_rarely_seen_twice(pairs: list[PreferencePair]) -> None:
    assert len({pair.prompt_key for pair in pairs}) >= 0.97 * COUNT
    assert len({pair.id for pair in pairs}) == COUNT
    assert all(len(pair.prompt) == 1 and pair.prompt[0].role == "user" for pair in pairs)


def test_topics_and_tasks_are_balanced(pairs: list[PreferencePair]) -> None:
    topics = Counter(tag for pair in pairs for tag in pair.tags if tag.startswith("topic:"))
    assert len(topics) == len(load_topics()) >= 66
    assert max(topics.values()) == min(topics.values()) == COUNT // len(topics)
    assert Counter(pair.category for pair in pairs) == dict.fromkeys(TASKS, COUNT // 3)


def test_every_topic_has_enough_to_say() -> None:
    keys = [topic.key for topic in load_topics()]
    assert len(set(keys)) == len(keys)
    for topic in load_topics():
        clauses = [clause for group in topic.good.values() for clause in group]
        assert len(set(topic.asks)) >= 4, topic.key
        assert 3 <= len(set(clauses)) == len(clauses) <= 6, topic.key
        assert len(set(topic.bad)) >= 3, topic.key
        assert set(topic.good) <= set(load_patterns(topic.task).leads), topic.key
        assert topic.verdict in load_patterns(topic.task).good_openers, topic.key
        for clause in (*clauses, *topic.bad):
            assert (clause[0] + clause[-1]).isalpha(), clause
        for question in topic.asks:
            assert re.fullmatch(r"[A-Z][^?]*\?( [A-Z][^?]*[.])?|([A-Z][^.?]*\. )?[A-Z][^?]*\?", question), question


def test_chosen_answers_never_speak_as_the_asker(pairs: list[PreferencePair]) -> None:
    """`my` belongs to the person who asks."""
    assert not [pair.chosen for pair in pairs if "my" in words(both(pair)[0])]


def test_spans_are_exactly_the_bad_sentences(mixed: list[PreferencePair]) -> None:
    for pair in mixed:
        text = both(pair)[1]
        starts_and_ends, at = set(), 0
        for sentence in sentences(text):
            starts_and_ends.add((at, at + len(sentence)))
            at += len(sentence) + 1
        assert set(spans(pair)) <= starts_and_ends, text
        assert list(spans(pair)) == sorted(set(spans(pair)))


def test_bad_sentences_are_in_the_rejected_response_only(pairs: list[PreferencePair]) -> None:
    bad = {sentence for pair in pairs for sentence in bad_sentences(pair)}
    good = {sentence for pair in pairs for sentence in sentences(both(pair)[0])}
    outside = {
        sentence for pair in pairs for sentence in sentences(both(pair)[1]) if sentence not in bad_sentences(pair)
    }
    assert bad
    assert not bad & good
    assert not bad & outside
    authored = [clause for topic in load_topics() for clause in topic.bad]
    chosen = "\n".join(both(pair)[0].lower() for pair in pairs)
    assert not [clause for clause in authored if clause.lower() in chosen]


def test_every_mixed_negative_has_bad_sentences_and_severity_is_their_share(mixed: list[PreferencePair]) -> None:
    whole = 0
    for pair in mixed:
        assert spans(pair), pair.source
        share = Fraction(sum(end - start for start, end in spans(pair)), len(both(pair)[1]))
        assert pair.severity == pytest.approx(float(share), abs=5e-5)
        whole += len(spans(pair)) == len(sentences(both(pair)[1]))
    assert 0.2 < whole / len(mixed) < 0.4
    assert {len(spans(pair)) for pair in mixed} == {1, 2, 3, 4, 5}


def test_planted_negatives_are_all_good(pairs: list[PreferencePair], planted: list[PreferencePair]) -> None:
    assert 0.065 < len(planted) / len(pairs) < 0.095
    assert all(pair.low_reward_spans == () and pair.severity == 0 for pair in planted)
    assert len({pair.tags[0] for pair in planted}) >= 60


def test_planted_negatives_are_near_duplicates_of_chosen_responses(
    pairs: list[PreferencePair], mixed: list[PreferencePair], planted: list[PreferencePair]
) -> None:
    """Nine other pairs of the topic stand for a retain split; the mixed negatives must not come as near."""
    chosen: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)
    for pair in pairs:
        chosen[pair.tags[0]].append((pair.id, set(words(both(pair)[0]))))
    rng = random.Random(1)  # noqa: S311 (which nine pairs to compare with)

    def nearest(pair: PreferencePair, count: int | None) -> float:
        others = [other for key, other in chosen[pair.tags[0]] if key != pair.id]
        others = others if count is None else rng.sample(others, count)
        rejected = set(words(both(pair)[1]))
        return max(jaccard(rejected, other) for other in others)

    assert min(nearest(pair, None) for pair in planted) >= 0.8
    assert sum(nearest(pair, 9) >= 0.8 for pair in planted) / len(planted) >= 0.9
    assert sum(nearest(pair, 9) >= 0.8 for pair in mixed) / len(mixed) <= 0.01


def test_good_answers_of_a_topic_vary(pairs: list[PreferencePair]) -> None:
    by_topic: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        by_topic[pair.tags[0]].append(both(pair)[0])
    for topic, answers in by_topic.items():
        assert len(set(answers)) >= 0.7 * len(answers), topic
        bags = [set(words(answer)) for answer in answers[:20]]
        assert sum(jaccard(one, other) < 0.8 for one, other in combinations(bags, 2)) >= 0.5 * 190, topic


def test_responses_are_short_and_differ(pairs: list[PreferencePair]) -> None:
    shortest, longest = RESPONSE_WORDS
    for pair in pairs:
        chosen, rejected = both(pair)
        assert chosen != rejected
        assert pair.prompt[0].content.strip()
        for text in (chosen, rejected):
            assert shortest <= len(text.split()) <= longest
            assert 2 <= len(sentences(text)) <= 5


def test_sentences_are_well_formed(pairs: list[PreferencePair]) -> None:
    for pair in pairs:
        for text in (pair.prompt[0].content, *both(pair)):
            assert not re.search(r"[{}\[\]<>|]|  |\s[.,!?]|[.,!?]{2}", text), text
            assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in sentences(text)), text
            assert not re.search(r"\b(\w+) \1\b", text.lower()), text
            assert not re.search(r"\ba [aeio]\w|\ban [^aeiou]", text.lower()), text


def test_vocabulary_is_small_enough_for_a_tiny_model(pairs: list[PreferencePair]) -> None:
    seen = Counter(word for pair in pairs for text in (pair.prompt[0].content, *both(pair)) for word in words(text))
    assert 500 < len(seen) <= 2500
    assert sum(count < 5 for count in seen.values()) <= 0.02 * len(seen)


def test_nothing_that_a_class_should_not_read(pairs: list[PreferencePair]) -> None:
    seen = {word for pair in pairs for text in (pair.prompt[0].content, *both(pair)) for word in words(text)}
    assert sorted(seen & NOT_FOR_CLASS) == []
    assert "silly" in seen  # the words looked at are those of the texts


def test_bad_words_can_be_told_from_good_ones_on_new_prompts(mixed: list[PreferencePair]) -> None:
    """How often the last three words were bad must already separate: ROC AUC over words, later pairs held out."""
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [1, 2])
    held_out: list[tuple[float, bool]] = []
    for index, pair in enumerate(mixed):
        text = both(pair)[1]
        last = ("", "", "")
        for match in re.finditer(r"[\w']+|[.,!?]", text):
            last = (*last[1:], match.group().lower())
            bad = any(start <= match.start() < end for start, end in spans(pair))
            if index < 2000:
                counts[last][0] += bad
                counts[last][1] += 1
            else:
                held_out.append((counts[last][0] / counts[last][1], bad))
    good_scores = sorted(score for score, bad in held_out if not bad)
    bad_scores = sorted(score for score, bad in held_out if bad)
    assert auc(bad_scores, good_scores) >= 0.95


def auc(high: list[float], low: list[float]) -> float:
    """P(high > low) + P(equal) / 2."""
    below, ties = Counter(low), 0.0
    total, at = 0.0, 0
    for score in high:
        while at < len(low) and low[at] < score:
            at += 1
        ties += below[score] / 2
        total += at
    return (total + ties) / (len(high) * len(low))
