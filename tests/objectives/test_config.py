"""The configuration of an objective: defaults, what it records, and what it refuses, with a remedy."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from u2a_core.errors import ScoringError
from u2a_core.objectives.config import OBJECTIVES, REFUSAL, ObjectiveConfig


def test_defaults_are_those_of_the_table() -> None:
    none, flat = {"retention": "none", "alpha": 0.0}, {"refusal": REFUSAL}
    assert {name: ObjectiveConfig(name).settings() for name in OBJECTIVES} == {
        "ga": {"name": "ga", **none},
        "graddiff": {"name": "graddiff", "retention": "nll", "alpha": 1.0},
        "npo": {"name": "npo", "beta": 0.1, **none},
        "simnpo": {"name": "simnpo", "beta": 2.5, "gamma": 0.0, **none},
        "dpo": {"name": "dpo", "beta": 0.1, **flat, **none},
        **{f"flat-{kind}": {"name": f"flat-{kind}", **flat, **none} for kind in ("kl", "tv", "js", "pearson")},
        "yao": {
            "name": "yao",
            "epsilon": [0.5, 1.0, 1.0],
            "random_answers": 5,
            "retention": "kl",
            "alpha": 1.0,
        },
    }
    assert ObjectiveConfig() == ObjectiveConfig("ga")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_recorded_is_plain_json_and_makes_the_same_objective(name: str) -> None:
    recorded = json.loads(json.dumps(ObjectiveConfig(name).settings()))
    assert recorded == ObjectiveConfig(name).settings()
    assert ObjectiveConfig(**{**recorded, "alpha": None}).settings() == recorded


def test_given_values_stand_and_the_rest_follows_the_objective() -> None:
    assert ObjectiveConfig("simnpo", gamma=0.5).settings() == {
        "name": "simnpo", "beta": 2.5, "gamma": 0.5, "retention": "none", "alpha": 0.0,
    }  # fmt: skip
    npo = ObjectiveConfig("npo")
    assert replace(npo, retention="kl").settings()["alpha"] == 1.0  # not the 0 that npo has without a retention term
    assert replace(npo, retention="nll", alpha=0.0).settings()["alpha"] == 0.0
    assert replace(ObjectiveConfig("yao"), epsilon=(1, 2, 3)).settings()["alpha"] == 3.0
    assert ObjectiveConfig("yao", alpha=0.5).settings()["alpha"] == 0.5
    assert ObjectiveConfig("yao", retention="none").settings()["alpha"] == 0.0
    with pytest.raises(FrozenInstanceError):
        npo.beta = 1.0


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("tofu", {}, ["'tofu'", "ga, graddiff, npo, simnpo, dpo, flat-kl", "yao"]),
        ("ga", {"beta": 0.1}, ["ga has no --beta", "npo, simnpo, dpo"]),
        ("npo", {"gamma": 0.0}, ["npo has no --gamma", "simnpo"]),
        ("npo", {"random_answers": 3}, ["no --random-answers", "yao"]),
        ("yao", {"refusal": "No."}, ["no --refusal", "dpo, flat-kl"]),
        ("dpo", {"epsilon": (1, 1, 1)}, ["no --epsilon", "yao"]),
        ("npo", {"beta": 0.0}, ["--beta", "greater than 0", "it is 0.0"]),
        ("npo", {"beta": float("nan")}, ["--beta", "it is nan"]),
        ("npo", {"beta": float("inf")}, ["--beta", "it is inf"]),
        ("npo", {"beta": "0.1"}, ["--beta", "a number", "'0.1'"]),
        ("simnpo", {"gamma": -0.1}, ["--gamma", "at least 0", "-0.1"]),
        ("yao", {"epsilon": (1.0, -1.0, 1.0)}, ["--epsilon", "at least 0"]),
        ("yao", {"epsilon": (0.0, 0.0, 1.0)}, ["--epsilon", "not both 0"]),
        ("yao", {"epsilon": (1.0, 1.0)}, ["--epsilon", "three numbers"]),
        ("yao", {"random_answers": 0}, ["--random-answers", "at least 1", "it is 0"]),
        ("yao", {"random_answers": 2.5}, ["--random-answers", "whole number"]),
        ("dpo", {"refusal": "  "}, ["--refusal", "at least one word"]),
        ("ga", {"retention": "l2"}, ["--retention", "none, nll, kl", "'l2'"]),
        ("ga", {"retention": "kl", "alpha": -1.0}, ["--alpha", "at least 0", "-1.0"]),
        ("ga", {"alpha": 1.0}, ["alpha = 1.0", "nll or kl"]),
        ("graddiff", {"retention": "none", "alpha": 1.0}, ["alpha = 1.0", "leave alpha out"]),
        ("yao", {"epsilon": (1.0, 1.0, 2.0), "alpha": 1.0}, ["alpha = 1.0", "ε3 = 2.0", "one of them"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_remedy(name: str, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ScoringError) as caught:
        ObjectiveConfig(name, **given)
    assert [word for word in words if word not in str(caught.value)] == []
