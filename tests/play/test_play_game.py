"""The game: dream and reality by the same actions, who acts, where it begins, how far they part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import worldflux
from worldflux.columns import step_columns
from worldflux.episodes import Episodes, EpisodeWriter
from worldflux.errors import CapabilityError, ConfigError, StorageError
from worldflux.session import Session
from worldflux_play.game import Game
from worldflux_play.opened import open_played
from worldflux_play.pictures import SAME, picture, psnr

LEFT, STAY, RIGHT = (np.array(choice) for choice in range(3))


@pytest.fixture
def game(played):
    found = Game(played, seed=3)
    yield found
    found.close()


def test_a_run_is_opened_with_its_environment_and_agent(played, run):
    assert played.name == "rssm:small" and played.env == "wf/catch"
    assert played.env_options["obs"] == "pixels" and played.agent is not None
    assert open_played(run).out == run / "play"


def test_an_environment_of_the_callers_shows_what_the_model_sees(run):
    assert open_played(run, env="wf/pendulum").env_options == {"obs": "pixels", "size": 64}


def test_an_environment_with_other_actions_is_refused(run):
    with pytest.raises(ConfigError, match=r"wf/pendulum takes actions of \(1,\), the model of 3"):
        Game(open_played(run, env="wf/pendulum"))


def test_reality_is_the_environment_itself(game, played):
    env = worldflux.make_env("wf/catch", obs="pixels")
    seen, _ = env.reset(seed=3)
    shown = game.reset()
    for action in (LEFT, RIGHT, STAY, LEFT):
        assert np.array_equal(shown.pixels["real"], seen["image"].transpose(1, 2, 0))
        shown = game.advance(action)
        seen, reward, *_ = env.step(action)
        assert shown.facts["reward"]["real"] == reward and shown.facts["action"] == int(action)


def test_the_dream_is_a_session_of_core_from_the_first_moment(game, played):
    session = Session(played.model, played.model.encode(_obs(game.moment.obs)), seed=3)
    other = {}
    for actions in ((LEFT, LEFT), (RIGHT, RIGHT)):
        game.reset(3)
        other[int(actions[0])] = [game.advance(action).pixels["dream"] for action in actions]
    assert other[0][0].shape == (64, 64, 3)
    assert not np.array_equal(other[0][1], other[2][1]), "the dream hears the action"
    game.reset(3)
    again = [game.advance(LEFT).pixels["dream"] for _ in range(2)]
    assert np.array_equal(again[1], other[0][1]), "the seed repeats it"
    assert session.state.tensors.keys() == game.dream.session.state.tensors.keys()


def _obs(obs):
    return {key: torch.as_tensor(value)[None] for key, value in obs.items()}


def test_an_end_is_said_and_the_next_step_begins_anew(game):
    shown = [game.advance(STAY) for _ in range(9)]
    assert [each.facts["over"] for each in shown] == [False] * 8 + [True]
    assert abs(shown[-1].facts["return"]["real"]) == 1
    after = game.advance(STAY)
    assert after.facts["t"] == 0 and after.facts["episode"] == 1 and not after.facts["over"]


def test_where_nothing_goes_on_by_itself_the_dream_continues_alone(game):
    game.goes_on = False
    shown = [game.advance(LEFT) for _ in range(12)]
    assert shown[-1].facts["t"] == 12 and shown[-1].facts["over"]
    assert np.array_equal(shown[-1].pixels["real"], shown[8].pixels["real"])
    assert not np.array_equal(shown[-1].pixels["dream"], shown[8].pixels["dream"])
    assert "psnr" not in shown[-1].facts, "there is nothing to compare with"


def test_resync_is_the_filtered_state_of_what_was_really_seen(game, played):
    seen, actions = [game.moment.obs["image"]], []
    for action in (LEFT, LEFT, RIGHT):
        game.advance(action)
        seen.append(game.moment.obs["image"])
        actions.append(action)
    before = game.dream.session.state["deter"]
    game.resync()
    after = game.dream.session.state["deter"]
    assert not torch.equal(before, after)
    state = played.model.encode(_obs({"image": seen[0]}), deterministic=True)
    assert after.shape == state["deter"].shape
    history = game.dream.session._starts  # the sequence that core observed
    assert torch.equal(history.obs["image"][0], torch.as_tensor(np.stack(seen)))
    assert history.action[0].tolist() == [0, 0, 2, 0] and history.is_first[0].tolist()[0]
    assert game.at == 3, "time goes on"


def test_everybody_who_can_act_acts(game):
    assert game.actors() == ["person", "agent", "random_shooting", "cem", "icem", "mppi", "random"]
    for who in ("agent", "mppi", "random"):
        game.control(who)
        game.reset(5)
        taken = [game.advance(STAY).facts["action"] for _ in range(3)]
        game.control(who)
        game.reset(5)
        assert taken == [game.advance(STAY).facts["action"] for _ in range(3)]
    game.control("person")
    assert game.advance(RIGHT).facts["action"] == 2


def test_an_agent_that_takes_over_remembers_what_the_person_did(game, played):
    for action in (LEFT, LEFT, RIGHT):
        game.advance(action)
    game.control("agent")
    steps = len(game.history)
    assert steps == 3 and game._actor.state is not None
    fresh = Game(played, seed=3)
    fresh.control("agent")
    assert fresh._actor.state is None
    assert int(game._actor.state["planner.action"]) == 2, "its last action is told"


def test_who_is_not_there_cannot_act(game):
    with pytest.raises(ConfigError, match=r"Nobody here is called 'agnt'. Did you mean 'agent'\?"):
        game.control("agnt")
    with pytest.raises(CapabilityError, match="cannot begin from data"):
        game.begin_from("data")


def test_uncertainty_is_measured_when_asked_for(game):
    assert "uncertainty" not in game.advance(STAY).facts
    game.uncertain = True
    assert game.advance(STAY).facts["uncertainty"] > 0


def test_an_imagined_start_has_no_reality(game):
    shown = game.begin_from("imagined")
    assert set(shown.pixels) == {"dream"} and "real" not in shown.facts.get("reward", {})
    assert game.advance(LEFT).pixels.keys() == {"dream"}
    with pytest.raises(CapabilityError, match="no reality here"):
        game.resync()
    game.control("agent")
    assert game.advance().facts["action"] in (0, 1, 2), "the agent sees the dream"


def test_an_image_is_where_the_dream_begins(game):
    image = np.zeros((3, 64, 64), np.uint8)
    image[0] = 255
    shown = game.begin_from("image", image={"image": image})
    assert (shown.pixels["real"][..., 0] == 255).all()
    assert set(game.advance(LEFT).pixels) == {"dream"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """An episode of Catch, all to the left."""
    folder = tmp_path_factory.mktemp("recorded")
    env = worldflux.make_env("wf/catch", obs="pixels")
    obs, over = env.reset(seed=9)[0], False
    rows = [(obs["image"], 0, 0.0)]
    while not over:
        obs, reward, over, *_ = env.step(0)
        rows.append((obs["image"], 0, reward))
    images, actions, rewards = (np.stack(each) for each in zip(*rows, strict=True))
    last = np.arange(len(rows)) == len(rows) - 1
    specs = {"image": worldflux.TensorSpec((3, 64, 64), "uint8", low=0, high=255)}
    columns = step_columns(specs, worldflux.TensorSpec((), "int64", n=3))
    EpisodeWriter(folder, columns).write(
        {"obs.image": images, "action": actions, "reward": rewards.astype(np.float32),
         "is_first": np.arange(len(rows)) == 0, "is_last": last, "is_terminal": last}
    )  # fmt: skip
    return folder


def test_an_episode_of_data_is_reality_along_its_own_actions(played, recorded):
    game = Game(replace(played, data=Episodes(recorded)))
    game.begin_from("data")
    game.control("recorded")
    truth = Episodes(recorded)[0]
    for row in range(1, 10):
        shown = game.advance()
        assert (shown.facts["action"] == 0 and "psnr" in shown.facts) or row == 9
        assert np.array_equal(shown.pixels["real"], truth["obs.image"][row].transpose(1, 2, 0))
    assert shown.facts["over"]
    game.reset()
    game.control("person")
    assert "real" in game.advance(LEFT).pixels, "the recorded action, by a person"
    assert "real" not in game.advance(RIGHT).pixels, "nobody knows what would have happened"
    with pytest.raises(ConfigError, match="There is no episode 7: the data has 1"):
        game.begin_from("data", 7)
    game.begin_from("env")
    with pytest.raises(CapabilityError, match="Only an episode of data has recorded actions"):
        game.control("recorded")


def test_data_without_an_episode_is_refused(run, tmp_path):
    EpisodeWriter(tmp_path / "none", step_columns({"image": worldflux.TensorSpec((1,))}))
    with pytest.raises(StorageError, match="holds no finished episode"):
        open_played(run, data=tmp_path / "none")


def test_pictures_and_how_alike_they_are():
    stack = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((12, 4, 4), np.uint8)
    assert picture(stack)[0, 0].tolist() == [9, 10, 11], "the newest of a stack"
    assert picture(stack[:1]).shape == (4, 4, 3)
    assert picture(np.zeros((3, 2000, 10), np.uint8)).shape == (500, 3, 3)
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr(black, black) == SAME and psnr(black, white) == 0
    assert psnr(black, black + 25) == pytest.approx(20.17, abs=0.01)
