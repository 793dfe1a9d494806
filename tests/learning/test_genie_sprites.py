"""Genie finds the actions of wf/sprites in frames alone, and its dynamics obeys them.

The gate: latent actions tell the hidden ones (purity), and predictions along inferred actions are
closer to the truth than along random ones (delta PSNR). Controls that have to fail: a decoder that
sees the future, and the actions of another film.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from worldflux.columns import step_columns
from worldflux.core.batch import Batch
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand
from worldflux.episodes import Episodes, EpisodeWriter
from worldflux.specs import TensorSpec
from worldflux.training import Phase
from worldflux_envs.wf.sprites import BODY, LEFT, RIGHT, Sprites
from worldflux_genie.action_map import contingency, pairs, purity
from worldflux_genie.agent import GenieLearner
from worldflux_genie.evaluation import effect_of_actions
from worldflux_genie.latent_action import Explained, LatentActionModel
from worldflux_train.api import load_run, train
from worldflux_train.config import resolve

pytestmark = pytest.mark.slow

SIZE, REPEAT, STEPS = 32, 4, 40
IMAGE = {"image": TensorSpec((3, SIZE, SIZE), "uint8", low=0, high=255)}
COLUMNS = step_columns(IMAGE, TensorSpec((), "int64", n=4, labels=Sprites.labels), reward=False)


def record(folder: Path, episodes: int, seed: int) -> str:
    """Random play, of actions that do something: no step into a wall, no jump in the air."""
    game, generator = Sprites(), torch.Generator().manual_seed(seed)
    chance = torch.rand(episodes, game.chances, generator=generator, dtype=torch.float64)
    state = game.reset(chance)
    images, actions = [game.picture(state, SIZE)], []
    for _ in range(STEPS):
        x, always = state["x"], torch.ones(episodes, dtype=torch.bool)
        stands = state["fall"] == 0
        can = torch.stack([always, x > BODY + 1e-6, x < 1 - BODY - 1e-6, stands], 1)
        assert (LEFT, RIGHT) == (1, 2)
        action = torch.multinomial(can.double(), 1, generator=generator)[:, 0]
        for _ in range(REPEAT):
            state = game.step(state, action)[0]
        images.append(game.picture(state, SIZE))
        actions.append(action)
    film = torch.stack(images, 1).numpy()
    taken = torch.stack([*actions, torch.zeros_like(actions[0])], 1).numpy()
    writer, place = EpisodeWriter(folder, COLUMNS), np.arange(STEPS + 1)
    flags = {"is_first": place == 0, "is_last": place == STEPS, "is_terminal": place < 0}
    for image, action_row in zip(film, taken, strict=True):
        writer.write({"obs.image": image, "action": action_row, **flags})
    return str(folder)


def films(folder: str, frames: int) -> Iterator[Batch]:
    """Labelled sequences that nothing was trained on."""
    source = EpisodeSource(Episodes(folder), COLUMNS, seed=1)
    phase = Phase("held out", 64, frames, updates_per_step=1, boundary="within")
    for number in range(4):
        yield source.read(source.choose(phase, number))


def purity_of(learner: GenieLearner, held_out: str) -> float:
    model = learner.world_model.eval()
    found = [pairs(model, batch) for batch in films(held_out, model.config.model.frames)]
    taken, inferred = (torch.cat(side) for side in zip(*found, strict=True))
    codes = model.action_conditioner.quantizer.codes
    return purity(contingency(taken, inferred, 4, codes))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_actions_are_found_and_obeyed(seed: int, tmp_path: Path) -> None:
    film, held_out = record(tmp_path / "film", 250, 0), record(tmp_path / "held", 30, 9)
    own = {"data.path": film, "data.validation": held_out, "train.seed": seed}
    run = train(resolve(config="genie-sprites", overrides=own), tmp_path / "run").run
    score = next(float(r["eval/score"]) for r in reversed(run.metrics()) if "eval/score" in r)
    learner = load_run(run.path)[1]
    assert isinstance(learner, GenieLearner)
    found = purity_of(learner, held_out)
    model = learner.world_model.eval()
    batch = next(films(held_out, model.config.model.frames))
    other = effect_of_actions(model, batch, Rand.seeded(0), 4, shuffled=True)
    assert found >= 0.9 and score >= 3.0, (found, score)
    assert float(other.delta()[-1]) < 1.0, other.delta()  # the actions of another film


class Peeking(LatentActionModel):
    """A decoder that sees the frame it has to predict."""

    def explained(
        self, video: Tensor, is_first: Tensor | None = None, rand: Rand | None = None
    ) -> Explained:
        actions = self.quantizer.chosen(self.features(video, is_first), rand)
        return Explained(actions, self.predicted(video[:, 1:], actions.output))


def test_a_decoder_that_sees_the_future_finds_no_actions(tmp_path: Path) -> None:
    film, held_out = record(tmp_path / "film", 250, 0), record(tmp_path / "held", 30, 9)
    config = resolve(config="genie-sprites", overrides={"data.path": film}).family
    torch.manual_seed(0)
    learner = GenieLearner(config, IMAGE)  # type: ignore[arg-type]
    learner.world_model.action_conditioner.__class__ = Peeking
    source = EpisodeSource(Episodes(film), learner.columns, seed=0)
    phase = learner.training_plan().phase("latent_action")
    learner.total["latent_action"] = count = config.agent.latent_action.steps  # type: ignore[attr-defined]
    for number in range(count):
        batch = source.read(source.choose(phase, number))
        learner.update(batch, "latent_action", rand=Rand.seeded(number))
    assert purity_of(learner, held_out) < 0.6
