"""The study sets like against like, and its document says what is missing."""

import dataclasses

import pytest

from bench.regrowth import SHORT, Training
from bench.study_distillation import Question, questions, section, trainings

ASKED = questions(SHORT)


def steps(training: Training) -> int:
    """All steps that went into a model."""
    return training.spec.steps + (steps(training.start.of) if training.start.of else 0)


@pytest.mark.parametrize("question", ASKED, ids=lambda question: question.title)
def test_the_arms_of_a_question_learn_for_equally_many_steps_at_one_rate_and_differ(question: Question) -> None:
    arms = list(question.arms.values())
    assert {steps(arm) for arm in arms} == {SHORT.steps}
    assert len({(arm.spec.learning_rate, arm.spec.seed) for arm in arms}) == 1
    assert len(set(arms)) == len(arms)
    assert question.reading


def test_a_training_that_two_questions_ask_for_is_carried_out_once() -> None:
    asked = trainings(ASKED)
    assert len(set(asked)) == len(asked) < sum(len(question.arms) for question in ASKED)
    assert all(dataclasses.asdict(training) for training in asked)


def test_what_is_not_measured_is_a_row_of_dashes() -> None:
    class Empty:
        blocks = type("Blocks", (), {"heldout": {"home": None}})

    table = section(Empty(), ASKED[0], lambda training: False).tables[0]  # type: ignore[arg-type]
    assert [set(row[1:]) for row in table.rows] == [{"–"}] * len(ASKED[0].arms)
    assert {len(row) for row in table.rows} == {len(table.head)}
