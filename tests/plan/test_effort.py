"""What retraining elsewhere would cost."""

import pytest

from core.model.cost import cost_of
from core.plan.effort import H100_FLOPS, PUBLISHED, UTILISATION, effort, half

COUNTS = {"Llama 3.2 1B": 1_235_814_400, "Llama 3.1 8B": 8_030_261_248, "Llama 3.1 70B": 70_553_706_496}
"""Parameters as the model cards and checkpoints of these models give them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_published_number_of_parameters(name: str) -> None:
    assert cost_of(PUBLISHED[name]).parameters == COUNTS[name]


def test_a_token_costs_two_operations_a_weight_forward_and_four_backward() -> None:
    teacher = cost_of(PUBLISHED["Llama 3.1 8B"])
    student = half(PUBLISHED["Llama 3.1 8B"])
    assert student.parameters <= teacher.parameters / 2
    found = effort(teacher, student, tokens=1e9, context=0)
    assert found.flops == 1e9 * (2 * teacher.matmul_parameters + 6 * student.matmul_parameters)
    assert found.device_hours * 3600 * H100_FLOPS * UTILISATION == pytest.approx(found.flops)
    assert effort(teacher, student, tokens=1e9, context=4096).flops > found.flops
    assert effort(teacher, student, tokens=2e9, context=0).flops == 2 * found.flops
