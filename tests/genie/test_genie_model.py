"""Genie behind the protocol: States, payloads, sessions, environments, maps, evaluation, runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from worldflux import Session, create_world_model, from_pretrained
from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.payloads import ActionPayload, ActionSequence
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.episodes import EpisodeWriter
from worldflux.errors import CapabilityError, ConfigError, ContractError
from worldflux.runs import Run
from worldflux.specs import TensorSpec
from worldflux.testing.inputs import randomise
from worldflux_genie.action_map import fit_action_map
from worldflux_genie.config import PRESETS, GenieConfig
from worldflux_genie.evaluation import effect_of_actions, psnr
from worldflux_genie.tokenizer import FRAMES
from worldflux_genie.world_model import GenieWorldModel

SIZE = (3, 16, 12)
OBS = {"image": TensorSpec(SIZE, "uint8", low=0, high=255)}


def batch_of(rows: int = 2, frames: int = 5, seed: int = 0) -> Batch:
    """Random videos (B, T, C, Y, X) as a Batch of one episode each."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (rows, frames, *SIZE), generator=generator).byte()
    first = torch.zeros(rows, frames, dtype=torch.bool)
    first[:, 0] = True
    none = torch.zeros_like(first)
    return Batch(obs={"image": video}, is_first=first, is_last=none, is_terminal=none.clone())


@pytest.fixture
def model(small: Any) -> GenieWorldModel:
    """The small world model, in eval mode."""
    found: GenieWorldModel = small().world_model.eval()
    return found


# States and tokens


@torch.no_grad()
def test_frames_one_by_one_are_tokenized_as_a_video(model: GenieWorldModel) -> None:
    """Past the window too, where the oldest frame goes; imagined frames are hidden."""
    batch = batch_of(2, 8)
    batch.is_first[0, 3] = True
    state, tokens = model.encode(batch.obs["image"][:, 0]), []
    none = torch.zeros(2, dtype=torch.int64)
    for t in range(8):
        if t:
            obs, first = batch.obs["image"][:, t], batch.is_first[:, t]
            state = model.observe(state, none, obs, first)
        last = state["length"] - 1
        tokens.append(state["tokens"][torch.arange(2), last])
    assert state["length"].tolist() == [5, 5]
    whole = model.observe_sequence(batch)
    for t in range(8):
        last = whole["length"][:, t] - 1
        assert torch.equal(whole["tokens"][torch.arange(2), t, last], tokens[t]), t
    short = batch.map(lambda x: x[:, :5])
    assert torch.equal(model.tokens(short), torch.stack(tokens[:5], 1))


@torch.no_grad()
def test_after_imagination_only_what_was_seen_is_context(model: GenieWorldModel) -> None:
    batch, action = batch_of(2, 3), torch.zeros(2, dtype=torch.int64)
    start = model.encode(batch.obs["image"][:, 0])
    dreamt = [model.transition(start, action, rand=Rand.seeded(s)) for s in (0, 1)]
    assert not torch.equal(dreamt[0]["tokens"], dreamt[1]["tokens"])
    again = [model.update(state, action, batch.obs["image"][:, 1]) for state in dreamt]
    assert torch.equal(again[0]["tokens"][:, 2], again[1]["tokens"][:, 2])
    assert again[0]["cache.seen"][0].tolist() == [True, False, True, False, False]
    assert torch.equal(again[0][FRAMES][:, 2], batch.obs["image"][:, 1])


@torch.no_grad()
def test_a_rollout_decodes_each_frame_given_those_before(model: GenieWorldModel) -> None:
    """In one pass where the last State has them all, else State by State: the same frames."""
    start = model.observe_sequence(batch_of(2, 2)).at(-1)
    actions = torch.randint(5, (6, 2))
    for steps in (3, 6):  # six steps: more than the window holds
        path = model.rollout(start, actions[:steps], decode=True, rand=Rand.seeded(0))
        assert path.observations is not None
        assert path.observations["image"].shape == (steps + 1, 2, *SIZE)
        for t, state in enumerate(path.states):
            one = model.decode(state).predictions["image"]
            torch.testing.assert_close(path.observations["image"][t], one)


def test_floats_in_the_unit_interval_are_the_same_image(model: GenieWorldModel) -> None:
    image = batch_of(2, 1).obs["image"][:, 0]
    left, right = model.encode(image), model.encode(image.float() / 255)
    assert torch.equal(left["tokens"], right["tokens"]) and right[FRAMES].dtype == torch.uint8


# Actions


@torch.no_grad()
def test_a_latent_payload_is_a_number_or_a_code(model: GenieWorldModel) -> None:
    index = torch.tensor([3, 1])
    code = model.action_conditioner.codes(index)
    forms = (
        ActionPayload("latent", latent=index), ActionPayload("latent", latent=code),
        ActionPayload("discrete", tensor=index), index, code,
        torch.nn.functional.one_hot(index, 5).float(),
    )  # fmt: skip
    for form in forms:
        assert torch.equal(model.condition(form), code)
    start = model.encode(batch_of().obs["image"][:, 0])
    sequence = ActionSequence(ActionPayload("latent", latent=index.expand(2, 2)))
    left = model.rollout(start, sequence, deterministic=True)
    right = model.rollout(start, index.expand(2, 2), deterministic=True)
    assert torch.equal(left.states[-1]["tokens"], right.states[-1]["tokens"])
    with pytest.raises(ContractError, match=r"expected 5 at the end \(one-hot\) or 6"):
        model.condition(torch.zeros(2, 4))


def flashes(rows: int) -> Tensor:
    """Videos (B, 5, C, Y, X) of noise whose brightness changes from frame to frame."""
    light = torch.rand(rows, 5, 1, 1, 1)
    return (light * 255 * torch.rand(rows, 5, *SIZE)).byte()


def labelled(model: GenieWorldModel) -> tuple[Batch, tuple[int, ...]]:
    """Sequences whose actions 0, 1 and 2 are three of the latent ones that occur in them."""
    batch = batch_of(60, 5)
    batch.obs["image"] = flashes(60)
    index = model.infer_actions(batch.obs["image"])
    counts = torch.bincount(index.flatten(), minlength=5)
    common = tuple(counts.argsort(descending=True)[:3].tolist())
    assert counts[common[2]] > 0, counts
    action = torch.zeros(60, 5, dtype=torch.int64)
    for number, latent in enumerate(common):
        action[:, :-1][index == latent] = number
    return replace(batch, action=action), common


@torch.no_grad()
def test_a_map_of_actions_makes_it_an_environment(small: Any, tmp_path: Path) -> None:
    from worldflux_envs.dream import WorldModelEnv

    model = create_world_model("genie:tiny", obs_spec=OBS, config=small().config).eval()
    assert isinstance(model, GenieWorldModel)
    randomise(model.action_conditioner, gain=4.0)
    batch, common = labelled(model)
    start, names = model.encode(batch.obs["image"][:2, 0]), ("stand", "left", "right")
    before = model.transition(start, torch.tensor([common[1]] * 2), deterministic=True)
    fitted = fit_action_map(model, batch, names)
    assert fitted.latent[1:] == common[1:] and fitted.purity > 0.9
    assert model.action == TensorSpec((), "int64", n=3) and model.action.labels == names
    after = model.transition(start, torch.tensor([1, 1]), deterministic=True)
    assert torch.equal(before["tokens"], after["tokens"])
    latent = ActionPayload("latent", latent=torch.tensor([common[1]] * 2))
    assert torch.equal(
        model.transition(start, latent, deterministic=True)["tokens"], after["tokens"]
    )
    again = from_pretrained(model.save_pretrained(tmp_path / "played"))
    assert again.action.labels == names
    env = WorldModelEnv(again, horizon=3, starts={"image": batch.obs["image"][:, 0]})
    env.reset(seed=0)
    obs, reward, terminated, _, _ = env.step(2)
    assert env.action_space.n == 3 and obs["image"].shape == SIZE
    assert reward == 0 and not terminated


def test_a_map_needs_every_action_and_choices(model: GenieWorldModel) -> None:
    batch = batch_of(2, 5)
    zeros = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(ContractError, match="action 1 of 2 is in none of the 8 labelled"):
        fit_action_map(model, replace(batch, action=zeros), ("a", "b"))
    with pytest.raises(ContractError, match="maps choices"):
        fit_action_map(model, replace(batch, action=torch.zeros(2, 5, 3)))


def test_videos_that_do_not_fit_are_refused(model: GenieWorldModel) -> None:
    with pytest.raises(ContractError, match="T from 2 to 5"):
        model.infer_actions(torch.zeros(1, 6, *SIZE))
    with pytest.raises(ContractError, match="no phase 'dynamic'"):
        model.loss(batch_of(), "dynamic")
    with pytest.raises(CapabilityError, match="learns from one image"):
        GenieWorldModel(model.config, {"state": TensorSpec((4,))})


@torch.no_grad()
def test_a_session_is_played_and_put_back_onto_reality(model: GenieWorldModel) -> None:
    session = Session(model, batch_of(4, 3), rows=3)
    frame = session.step(ActionPayload("latent", latent=torch.tensor([0, 4, 2])))
    assert frame.image.shape == (3, *SIZE) and frame.reward is None and frame.ended is None
    seen = session.observe(batch_of(3, 1).obs["image"][:, 0], torch.tensor([1, 1, 1])).state
    assert seen["length"].tolist() == [5, 5, 5]
    session.reset(torch.tensor([True, False, False]))
    assert session.step(torch.tensor([1, 2, 3])).state["length"].tolist() == [4, 5, 5]


# Configuration


def test_presets_and_what_cannot_be() -> None:
    """Document 004's large has 36 heads for a width of 5120: heads have a size of their own."""
    big = PRESETS["large"].model.dynamics.transformer
    assert (big.dim, big.blocks, big.heads, big.head_size) == (5120, 48, 36, 128)
    with pytest.raises(ConfigError, match="no multiple of heads=36"):
        PRESETS["large"].with_(**{"model.dynamics.transformer.head_dim": None})
    with pytest.raises(ConfigError, match="mask_low"):
        GenieConfig().with_(**{"model.dynamics.mask_low": 0.9, "model.dynamics.mask_high": 0.5})
    with pytest.raises(ConfigError, match="needs actions=prepend"):
        GenieConfig().with_(**{"model.dynamics.kind": "causal", "model.dynamics.actions": "add"})
    with pytest.raises(ConfigError, match="could be a choice among them or a code"):
        GenieConfig().with_(**{"model.latent_action.quantizer.codes": 32})
    with pytest.raises(ConfigError, match="there are 8 latent actions"):
        GenieConfig().with_(**{"model.action_map": (1, 8)})
    with pytest.raises(ConfigError, match="more than steps=4"):
        GenieConfig().with_(**{"agent.dynamics.steps": 4})


def test_the_last_two_phases_run_apart_or_together(small: Any) -> None:
    def spans(**over: Any) -> list[tuple[int, int | None]]:
        return [(p.start, p.end) for p in small(**over).training_plan().phases]

    assert spans() == [(0, 4), (4, 8), (8, 12)]
    assert spans(**{"agent.together": True}) == [(0, 4), (4, 8), (4, 8)]
    assert small().config.agent.clock == 12
    assert small(**{"agent.together": True}).config.agent.clock == 8


# Evaluation


def test_psnr_is_that_of_each_image() -> None:
    image, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    image[0] += 0.1
    assert psnr(image, target).tolist() == pytest.approx([20.0, 100.0])


class Obeying(torch.nn.Module):
    """A decoder whose frames are as bright as the action that led there."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, state: State, keys: Any = None, conditions: Any = None) -> dict[str, Tensor]:
        last = state["length"] - 1
        code = state["actions"][torch.arange(len(last)), last]
        return {self.key: code[:, 0, None, None, None].expand(-1, *SIZE)}


@torch.no_grad()
def test_the_effect_of_actions_is_that_of_each_step_of_its_own_row(small: Any) -> None:
    """In a world that shows the action that led to a frame, as its brightness."""
    model = small().world_model.eval()
    randomise(model.action_conditioner, gain=4.0)
    model.decoder_module = Obeying("image")
    batch = batch_of(8, 5)
    batch.obs["image"] = flashes(8)
    index = model.infer_actions(batch.obs["image"])  # (B, 4)
    assert len(index.unique()) > 2
    other = torch.randint(5, (2, 8))
    target = batch.obs["image"][:, 3:].transpose(0, 1) / 255

    def shown(latent: Tensor) -> Tensor:
        light = model.latent_codes(latent)[..., 0, None, None, None]
        return psnr(light.expand(-1, -1, *SIZE), target)

    for shuffled in (False, True):
        rand = Rand(draws={"random": other})
        found = effect_of_actions(model, batch, rand, 2, shuffled)
        own = index[:, 2:].T.roll(1, 1) if shuffled else index[:, 2:].T
        torch.testing.assert_close(found.inferred, shown(own))
        torch.testing.assert_close(found.random, shown(other))
        torch.testing.assert_close(found.delta(), (shown(own) - shown(other)).mean(1))


# Runs


def record(folder: Path, episodes: int = 6) -> str:
    """Noise with an action beside it, which is not looked at."""
    columns = step_columns(
        {"image": TensorSpec(SIZE, "uint8", 0, 255)}, TensorSpec((), "int64", n=3)
    )
    writer, random = EpisodeWriter(folder, columns), np.random.default_rng(0)
    for _ in range(episodes):
        step = np.arange(9)
        writer.write(
            {
                "obs.image": random.integers(0, 256, (9, *SIZE)).astype(np.uint8),
                "action": random.integers(0, 3, 9) * (step < 8),
                "reward": np.zeros(9, np.float32),
                "is_first": step == 0, "is_last": step == 8, "is_terminal": np.zeros(9, bool),
            }
        )  # fmt: skip
    return str(folder)


def test_evaluation_measures_and_draws(small: Any, tmp_path: Path) -> None:
    from worldflux.episodes import Episodes

    learner = small()
    source = EpisodeSource(Episodes(record(tmp_path / "video")), learner.columns)
    found = learner.evaluate(source, Rand.seeded(0), 2)
    assert found.score == pytest.approx(
        found.metrics["psnr/inferred"] - found.metrics["psnr/random"], abs=1e-4
    )
    assert {"loss/tokenizer", "loss/latent_action", "loss/dynamics", "psnr/tokenizer"} <= set(
        found.metrics
    )
    assert set(found.pictures) == {"reconstructions", "token_usage", "action_grid", "delta_psnr"}
    assert found.pictures["action_grid"].shape == (3 * 18 + 2, 6 * 14 + 2, 3)
    assert all(p.dtype == np.uint8 and p.std() > 0 for p in found.pictures.values())


def final(run: Run) -> dict[str, Tensor]:
    """The weights of a run's last checkpoint."""
    folder = run.checkpoint_path(run.ticks()[-1])
    return load_file(folder / "agent" / "model.safetensors")


@pytest.mark.parametrize("stop", [2, 6, 10])
def test_a_run_goes_on_bit_for_bit_in_every_phase(small: Any, tmp_path: Path, stop: int) -> None:
    from worldflux_train import api
    from worldflux_train.config import resolve

    config = small().config.to_dict()
    data = {"data.path": record(tmp_path / "video"), "data.validation": 0.34}
    own = {
        **data, "train.eval_every": 0, "train.eval_first": False, "train.checkpoint_every": 2,
        "train.device": "cpu", "train.log_every": 2, "train.round": 1, "train.eval_batches": 1,
    }  # fmt: skip
    rooms = {"id": "genie:tiny", "model": config["model"], "agent": config["agent"]}
    whole = api.train(resolve(config=rooms, overrides=own, steps=12), tmp_path / "whole").run
    api.train(resolve(config=rooms, overrides=own, steps=stop), tmp_path / "cut")
    again = api.resume(tmp_path / "cut", steps=12).run
    left, right = final(whole), final(again)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
    assert any("eval/score" in row for row in whole.metrics())
