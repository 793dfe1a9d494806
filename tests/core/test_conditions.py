"""Conditions for copies of rows: by name, never by shape."""

from dataclasses import fields

import pytest
import torch

from worldflux.core.conditions import ACTION_MASK, repeated_conditions, tiled_conditions
from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State
from worldflux.errors import ContractError


def conditions(rows):
    """Everything per row holds the row's number; what is shared looks as if it had rows too."""
    number = torch.arange(float(rows))
    return ConditionPayload(
        text_condition=[f"row {i}" for i in range(rows)],
        goal=number[:, None],
        spatial=number.reshape(-1, 1, 1, 1),
        camera_pose=number[:, None, None],
        extras={
            "wf.row.speed": number,
            "wf.data.label": number.long(),
            ACTION_MASK: torch.ones(rows, 4, dtype=torch.bool),
            "wf.memory.own": State({"h": number[:, None]}),
            "wf.shared.table": torch.zeros(rows, 7),
            "wf.shared.names": ["shared"] * rows,
            "wf.shared.scale": 2.0,
        },
    )


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    ("repeat", "order"),
    [(repeated_conditions, lambda n: [i for i in range(n) for _ in range(2)]),
     (tiled_conditions, lambda n: [*range(n), *range(n)])],
)  # fmt: skip
def test_rows_are_copied_and_the_shared_is_not(rows, repeat, order):
    one = conditions(rows)
    many, expected = repeat(one, rows, 2), order(rows)
    assert many.text_condition == [f"row {i}" for i in expected]
    for value in (many.goal, many.spatial, many.camera_pose):
        assert value.shape[0] == 2 * rows and value.flatten().tolist() == expected
    assert many.extras["wf.row.speed"].tolist() == expected
    assert many.extras["wf.data.label"].tolist() == expected
    assert many.extras[ACTION_MASK].shape == (2 * rows, 4)
    assert many.extras["wf.memory.own"]["h"].flatten().tolist() == expected
    for key in ("wf.shared.table", "wf.shared.names", "wf.shared.scale"):
        assert many.extras[key] is one.extras[key], key


def test_nothing_and_none_stay():
    assert repeated_conditions(None, 2, 3) is None
    bare = repeated_conditions(ConditionPayload(extras={"wf.row.speed": None}), 2, 3)
    assert all(getattr(bare, f.name) is None for f in fields(bare) if f.name != "extras")
    assert bare.extras == {"wf.row.speed": None}


@pytest.mark.parametrize("repeat", [repeated_conditions, tiled_conditions])
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"goal": torch.zeros(1, 2)}, "'goal' has 1 rows, expected 3"),
        ({"text_condition": ["one", "two"]}, "'text_condition' has 2 rows"),
        ({"extras": {ACTION_MASK: torch.ones(4)}}, "'wf.action.mask' has 4 rows"),
        ({"extras": {"wf.data.label": 3}}, "'wf.data.label' has no rows"),
    ],
)
def test_a_condition_that_lacks_rows_is_named(repeat, given, name):
    with pytest.raises(ContractError, match=name):
        repeat(ConditionPayload(**given), 3, 2)
