"""Slots are filled while the model is built: sizes, refusals, and what is never touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux.config import Config
from worldflux.core import filling
from worldflux.core.interfaces import Decoder, DynamicsModel, ObservationEncoder
from worldflux.core.model import WorldModel
from worldflux.core.rand import Rand, normal
from worldflux.core.state import State
from worldflux.core.trial import on_zeros
from worldflux.errors import ConfigError, ContractError
from worldflux.slots import SLOTS, built, given, plain_slots, read_slots
from worldflux.specs import TensorSpec
from worldflux.testing import random_batch
from worldflux.testing.dummies import TinyConfig, TinyDecoder, TinyEncoder, TinyModel

OBS, ACTION = {"state": TensorSpec((5,))}, {"action": TensorSpec((2,))}


class Wide(ObservationEncoder):
    """More features than the default has."""

    def __init__(self, model: Any, units: int = 48, key: str = "embed") -> None:
        super().__init__()
        self.key, self.drop = key, nn.Dropout(0.5)
        self.net = nn.Linear(model.obs_spec["state"].size, units)

    def forward(self, obs: dict[str, Tensor]) -> State:
        return State({self.key: self.drop(self.net(obs["state"]))})


def make(**slots: Any) -> TinyModel:
    return built(lambda: TinyModel(TinyConfig(), OBS, ACTION), read_slots(slots))  # type: ignore[no-any-return]


def test_later_parts_take_their_sizes_from_earlier_ones() -> None:
    model = make(observation_encoder={"class": Wide, "units": 7})
    assert model.features["embed"] == TensorSpec((7,))
    assert model.dynamics_model.post.in_features == 16 + 7  # type: ignore[union-attr]
    batch = random_batch(OBS, ACTION, 2, 3)
    model.loss(batch).loss.backward()  # type: ignore[no-untyped-call]
    assert model.observation_encoder.net.weight.grad is not None  # type: ignore[union-attr]


def test_features_tell_what_each_part_gives() -> None:
    assert {name: spec.shape for name, spec in make().features.items()} == {
        "embed": (16,), "action": (2,), "deter": (16,), "stoch": (16,), "mean": (16,),
    }  # fmt: skip


def test_nothing_of_a_replaced_default_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the default was built")

    monkeypatch.setattr(TinyEncoder, "__init__", refuse)
    make(observation_encoder=Wide)


def test_a_part_may_wrap_the_default() -> None:
    class Scaled(ObservationEncoder):
        def __init__(self, model: WorldModel) -> None:
            super().__init__()
            self.inner = model.default_part()

        def forward(self, obs: dict[str, Tensor]) -> State:
            return State({"embed": 2 * self.inner(obs)["embed"]})

    model = make(observation_encoder=Scaled)
    assert isinstance(model.observation_encoder.inner, TinyEncoder)  # type: ignore[union-attr]
    with pytest.raises(ContractError, match=r"default_part\(\) is there for a part's constructor"):
        model.default_part()


def test_the_trial_touches_no_random_numbers_no_statistics_and_no_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Normed(Wide):
        def __init__(self, model: Any) -> None:
            super().__init__(model, 16)
            self.norm = nn.BatchNorm1d(16)
            self.norm.eval()

        def forward(self, obs: dict[str, Tensor]) -> State:
            noise = torch.randn(len(obs["state"]), 16)
            return State({"embed": self.norm(self.net(obs["state"])) + noise})

    tried = []

    def watched(*args: Any, **options: Any) -> dict[str, Tensor]:
        before = torch.get_rng_state()
        found = on_zeros(*args, **options)
        assert torch.equal(torch.get_rng_state(), before)
        tried.append(args[1])
        return found

    monkeypatch.setattr(filling, "on_zeros", watched)
    model = make()
    assert tried == ["rollout_executor", *SLOTS[:4]]
    part = Normed(model)
    filled = make(observation_encoder=part).observation_encoder
    assert filled is part and part.training and not part.norm.training
    assert torch.equal(part.norm.running_mean, torch.zeros(16))
    assert part.norm.num_batches_tracked == 0


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"observation_encoder": {"class": Wide, "key": "features"}},
        "TinyModel cannot use Wide as its observation_encoder: expected 'embed', found features.",
    ),
    (
        {"observation_encoder": nn.Identity()},
        "cannot use Identity as its observation_encoder: on one row of zeros it ends in "
        "ContractError",
    ),
    (
        {"action_conditioner": nn.Flatten(0)},
        "as its action_conditioner: for one row, 'action' was expected with shape (1, any), "
        "found (2,).",
    ),
    (
        {"observation_encoder": nn.Linear(5, 3)},
        "cannot use Linear as its observation_encoder: on one row of zeros it ends in TypeError",
    ),
]


@pytest.mark.parametrize(("slots", "text"), REFUSED)
def test_what_does_not_fit_is_refused_where_it_is_put_in(slots: Any, text: str) -> None:
    with pytest.raises(ContractError) as caught:
        make(**slots)
    assert text in str(caught.value)


KEYS = ("deter", "stoch", "mean")


class Small(DynamicsModel):
    """Another state than the family's heads can read."""

    recurrent = True

    def __init__(self, model: Any, size: int = 3) -> None:
        super().__init__()
        self.size = size

    def initial(self, batch_size: int, device: torch.device) -> State:
        return State(
            {key: torch.zeros(batch_size, self.size) for key in ("deter", "stoch", "mean")}
        )

    def transition(self, state: State, action: Tensor, **_: Any) -> State:
        return state

    def observe(self, state: State, *_: Any, **__: Any) -> State:
        return state


def test_a_size_that_the_family_fixes_is_named() -> None:
    with pytest.raises(ContractError) as caught:
        make(dynamics_model=Small)
    assert (
        "as its dynamics_model: for one row, 'deter' was expected with shape (1, 16), found "
        in (str(caught.value))
    )
    assert make(dynamics_model={"class": Small, "size": 16}).features["deter"].shape == (16,)


class Mute(TinyDecoder):
    """A decoder without a reward."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.obs_spec, model.width if hasattr(model, "width") else 16)
        del self.heads["reward"]


def test_a_missing_prediction_is_named() -> None:
    with pytest.raises(ContractError, match="decoder_module: expected 'reward', found state, cont"):
        make(decoder_module=Mute)


class Bare(WorldModel):
    """A family that declares a slot and does not fill it, and one that is not declared."""

    composable_support = frozenset({"decoder_module"})

    def loss(self, batch: Any, part: Any = None, *, rand: Any = None) -> Any:
        raise NotImplementedError


def test_slots_that_a_model_would_ignore_are_refused() -> None:
    with pytest.raises(ContractError, match="Bare would ignore another 'dynamics_model'. It can "):
        built(Bare, read_slots({"dynamics_model": Small}))
    with pytest.raises(ContractError, match="declares slot 'decoder_module' replaceable but does "):
        built(Bare, read_slots({"decoder_module": Mute}))
    with (
        pytest.raises(ContractError, match="slots.decoder_module was given, but no world model"),
        given(read_slots({"decoder_module": Mute})),
    ):
        pass


def test_the_slots_are_taken_by_one_model_and_gone_afterwards() -> None:
    with given(read_slots({"observation_encoder": Wide})):
        first, second = TinyModel(TinyConfig(), OBS, ACTION), TinyModel(TinyConfig(), OBS, ACTION)
    assert isinstance(first.observation_encoder, Wide)
    assert isinstance(second.observation_encoder, TinyEncoder)


def test_a_part_that_cannot_run_on_meta_is_tried_on_the_cpu() -> None:
    class Counting(Wide):
        def forward(self, obs: dict[str, Tensor]) -> State:
            number = int(obs["state"].sum().item())  # a meta tensor has no item
            return State({"embed": self.net(obs["state"]) + number})

    with torch.device("meta"):
        model = make(observation_encoder={"class": Counting, "units": 9})
    assert model.features["embed"].shape == (9,)
    assert model.observation_encoder.net.weight.is_meta  # type: ignore[union-attr]


def test_a_trial_of_ones_own_replaces_the_pass() -> None:
    class Takes(WorldModel):
        def __init__(self) -> None:
            super().__init__(Config(), OBS, ACTION)
            self.fill(
                "decoder_module",
                lambda: Needy(),
                trial=lambda part: part(State({"x": torch.zeros(1, 3)}), extra=2),
                expects={"x": (3,)},
            )

        def loss(self, batch: Any, part: Any = None, *, rand: Any = None) -> Any:
            raise NotImplementedError

    class Needy(Decoder):
        def forward(self, state: State, keys: Any = None, conditions: Any = None, *,
                    extra: int = 0) -> dict[str, Tensor]:  # fmt: skip
            assert extra == 2
            return {"x": state["x"]}

    assert Takes().decoder_module is not None


def test_parts_in_a_file_are_classes_with_plain_options() -> None:
    plain = plain_slots(
        {"observation_encoder": {"class": Wide, "units": 3}, "decoder_module": Mute}
    )
    assert plain == {
        "observation_encoder": {"class": f"{__name__}:Wide", "units": 3},
        "decoder_module": {"class": f"{__name__}:Mute"},
    }
    assert plain_slots({"decoder_module": "no.such:Class"}) == {  # nothing is imported
        "decoder_module": {"class": "no.such:Class"}
    }
    with pytest.raises(ConfigError, match="slots.dynamics_model is a Small that is built already"):
        plain_slots({"dynamics_model": Small(None)})

    class Local(Wide):
        pass

    with pytest.raises(ConfigError, match="cannot be imported again"):
        plain_slots({"observation_encoder": Local})


def test_noise_in_a_trial_is_fixed() -> None:
    seen: list[Tensor] = []

    class Noisy(Small):
        def transition(self, state: State, action: Tensor, *, rand: Rand | None = None,
                       deterministic: bool = False) -> State:  # fmt: skip
            assert rand is not None
            seen.append(rand.draw("x", (2,), normal))
            return state

    for _ in range(2):
        make(dynamics_model={"class": Noisy, "size": 16})
    assert torch.equal(seen[0], seen[1])
