"""Two processes: what they share, what is each one's own, and what they train together."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldflux import distributed
from worldflux.core.episode_source import EpisodeSource
from worldflux.core.rand import Rand, normal
from worldflux.errors import ConfigError
from worldflux.specs import TensorSpec
from worldflux.testing import clips
from worldflux.testing.episodes import counted_episode
from worldflux.training import LeastSampled, TrainingPlan
from worldflux_train.data import Mixture, ReadAhead
from worldflux_train.data.share import RankShare, shared
from worldflux_train.ranks import rank_plan, rank_rand, rank_seed
from worldflux_train.updater import Updater

pytestmark = pytest.mark.slow  # processes, or runs of more than ten seconds

OBS = {"state": TensorSpec((3,))}
CPU = torch.device("cpu")
UPDATES = 4


def learner() -> clips.ClipLearner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return clips.ClipLearner(clips.ClipConfig(classes=2), OBS)


def episodes(made: clips.ClipLearner, first: int = 0) -> EpisodeSource:
    numbers = range(first, first + 5)
    scaled = [counted_episode(made.columns, 9 + number, number) for number in numbers]
    for number, episode in zip(numbers, scaled, strict=True):
        episode["obs.state"] = (episode["obs.state"] % 7 + number).astype("float32")
    return EpisodeSource(scaled, made.columns, seed=3)


def trained(source_of_its_own: bool = False) -> tuple[clips.ClipLearner, list[Tensor]]:
    """A learner after some updates as this process does them, and the first batches it saw."""
    made, seen = learner(), []
    first = distributed.rank() * 5 if source_of_its_own else 0
    plain = episodes(made, first)
    source = plain if source_of_its_own else ReadAhead(shared(plain))
    phase = rank_plan(made.training_plan()).phases[0]
    weighted = replace(phase, name="weighted", weights=LeastSampled(1.0))
    for each in (phase, weighted):
        for update in range(UPDATES):
            seen.append(source.read(source.choose(each, update)).obs["state"])
    rand = rank_rand(0, "learner", CPU)
    Updater(made, source, rand, CPU).learn(phase, 0, UPDATES, lambda metrics: None)
    if isinstance(source, ReadAhead):
        source.close()
    return made, seen


def work(rank: int, folder: Path) -> None:
    """What each of two processes does; `folder` gets its weights, batches and numbers."""
    from torch import distributed as ranks

    meet = f"file://{folder}/meet"
    ranks.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    assert distributed.rank() == rank and isinstance(shared(episodes(learner())), RankShare)
    assert distributed.agreed(rank == 1) and not distributed.agreed(False)
    assert distributed.total(rank + 3) == 7
    flags = [torch.tensor([rank == 0]), torch.tensor(float(rank)), torch.full((2, 2), rank).T]
    distributed.broadcast(flags)
    assert bool(flags[0]) and not flags[1] and not flags[2].any()
    rand = rank_rand(0, "learner", CPU)
    own, same = (rand.draw(name, (4,), normal, shared=name == "same") for name in ("own", "same"))
    clips.normal = lambda shape, device, generator: torch.zeros(shape, device=device)  # type: ignore[assignment]
    made, seen = trained()
    apart, _ = trained(source_of_its_own=True)
    with pytest.raises(ConfigError, match="batches of 7 sequences, which 2 ranks cannot share"):
        plan = made.training_plan()
        rank_plan(replace(plan, phases=[replace(plan.phases[0], batch=7)]))
    found = {f"trained/{k}": v for k, v in made.state_dict().items()}
    found |= {f"apart/{k}": v for k, v in apart.state_dict().items()}
    found |= {f"seen/{n}": v for n, v in enumerate(seen)} | {"own": own, "same": same}
    torch.save(found, folder / f"rank{rank}.pt")
    ranks.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, __file__]
    started = [subprocess.Popen([*command, str(rank), str(folder)]) for rank in (0, 1)]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_ranks_read_together_what_one_process_reads(
    found: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "normal", lambda shape, *_: torch.zeros(shape))
    made, seen = trained()
    for number, batch in enumerate(seen):
        whole = torch.cat([rank[f"seen/{number}"] for rank in found])
        assert torch.equal(whole, batch), number
    for name, value in made.state_dict().items():  # and train to the same weights
        torch.testing.assert_close(found[0][f"trained/{name}"], value, msg=name)
        assert torch.equal(found[0][f"trained/{name}"], found[1][f"trained/{name}"]), name


def test_what_a_phase_begins_with_is_rank_0s(found: list[dict[str, Tensor]]) -> None:
    names = [name for name in found[0] if name.startswith("apart/")]
    assert names and all(torch.equal(found[0][name], found[1][name]) for name in names)
    made = learner()
    made.begin("model", episodes(made))  # rank 1's own data has other statistics
    assert torch.equal(found[1]["apart/world_model.mean"], made.world_model.mean)


def test_random_numbers_are_a_ranks_own_unless_they_are_shared(
    found: list[dict[str, Tensor]],
) -> None:
    assert not torch.equal(found[0]["own"], found[1]["own"])
    assert torch.equal(found[0]["same"], found[1]["same"])


def test_one_process_has_the_seeds_and_the_plan_it_always_had() -> None:
    from worldflux_train.seeding import derived

    plan: TrainingPlan = learner().training_plan()
    assert rank_seed(5, "replay") == derived(5, "replay") and rank_plan(plan) is plan
    rand = rank_rand(5, "learner", CPU)
    expected = Rand.seeded(derived(5, "learner")).draw("x", (3,), normal)
    assert torch.equal(rand.draw("x", (3,), normal), expected) and rand.shared_generator is None


def test_a_mixture_of_a_share_takes_as_many_rows_on_every_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = learner()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    rows = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts = {"data": shared(episodes(made)), "replay": episodes(made, 9)}
        mixed = Mixture(parts, 0.5, made.columns)
        phase = rank_plan(made.training_plan()).phases[0]
        batch = mixed.read(mixed.choose(phase, 1))
        assert batch.batch_size == 4
        rows.append(batch.obs["state"][:2])
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    whole = episodes(made)
    expected = whole.read(whole.choose(replace(phase, batch=4), 1)).obs["state"]
    assert torch.equal(torch.cat(rows), expected)


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
