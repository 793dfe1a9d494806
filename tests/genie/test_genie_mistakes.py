"""Mistakes that Genies have been seen to make, each with a test that a broken one fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.nn.vector_quantizer import Quantized
from worldflux_genie import maskgit
from worldflux_genie.config import DynamicsConfig
from worldflux_genie.dynamics import KEYS
from worldflux_genie.patches import patchify, unpatchify
from worldflux_genie.quantize import CodeBook

IMAGE = (3, 16, 12)
KINDS = [("maskgit", "prepend"), ("maskgit", "add"), ("causal", "prepend")]


def video(rows: int = 2, frames: int = 5, shape: tuple[int, ...] = IMAGE) -> Tensor:
    """Random videos (B, T, C, Y, X)."""
    return torch.randint(0, 256, (rows, frames, *shape), dtype=torch.uint8)


def batch_of(found: Tensor, first: tuple[int, ...] = ()) -> Batch:
    """Videos (B, T, C, Y, X) as a Batch; row 0 has an episode begin at each of `first`."""
    begin = torch.zeros(found.shape[:2], dtype=torch.bool)
    begin[:, 0] = True
    for t in first:
        begin[0, t] = True
    none = torch.zeros_like(begin)
    return Batch(obs={"image": found}, is_first=begin, is_last=none, is_terminal=none.clone())


def changed(found: Tensor, t: int) -> Tensor:
    """The video with another frame at t."""
    other = found.clone()
    other[:, t] = 255 - other[:, t]
    return other


# Causality: nothing looks ahead, the action of t explains t -> t + 1


@torch.no_grad()
def test_tokens_do_not_see_later_frames(small: Any) -> None:
    encoder, found = small().world_model.observation_encoder.eval(), video()
    plain, other = encoder.features(found), encoder.features(changed(found, 3))
    assert torch.equal(plain[:, :3], other[:, :3])
    assert not torch.equal(plain[:, 3], other[:, 3]) and not torch.equal(plain[:, 4], other[:, 4])


@torch.no_grad()
def test_an_action_sees_the_frame_it_leads_to_and_no_later_one(small: Any) -> None:
    part, found = small().world_model.action_conditioner, video()
    plain, other = part.features(found), part.features(changed(found, 3))
    assert torch.equal(plain[:, :2], other[:, :2])  # frames 0 -> 1 -> 2
    assert not torch.equal(plain[:, 2], other[:, 2])  # 2 -> 3 sees frame 3


@torch.no_grad()
def test_the_next_frame_is_told_by_the_action_alone(small: Any) -> None:
    """A decoder that sees the future leaves the action nothing to say."""
    part, found = small().world_model.action_conditioner, video()
    action = torch.randn(2, 5, part.quantizer.config.width)
    plain = part.predicted(found, action)
    assert torch.equal(plain[:, :3], part.predicted(changed(found, 3), action)[:, :3])
    torch.nn.init.normal_(part.decoder.layer_out.weight)
    told = part.predicted(found, action)
    action[:, 2] += 1
    other = part.predicted(found, action)
    assert torch.equal(told[:, :2], other[:, :2]) and not torch.equal(told[:, 2], other[:, 2])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "actions"), KINDS)
def test_logits_use_actions_up_to_their_own_frame(small: Any, kind: str, actions: str) -> None:
    dynamics = small(
        **{"model.dynamics.kind": kind, "model.dynamics.actions": actions}
    ).world_model.dynamics_model
    tokens, codes = torch.randint(24, (2, 5, 12)), torch.randn(2, 5, 6)
    first = batch_of(video()).is_first
    plain = dynamics.logits(tokens, codes, first)
    codes[:, 3] += 1
    other = dynamics.logits(tokens, codes, first)
    assert torch.equal(plain[:, :3], other[:, :3])
    assert not torch.equal(plain[:, 3], other[:, 3])  # the action that led to frame 3
    codes[:, 0] += 1
    assert torch.equal(other, dynamics.logits(tokens, codes, first))  # none led to frame 0
    tokens[:, 3] = (tokens[:, 3] + 1) % 24
    assert torch.equal(other[:, :3], dynamics.logits(tokens, codes, first)[:, :3])


@torch.no_grad()
def test_frames_of_another_episode_are_not_seen(small: Any) -> None:
    model, found = small().world_model.eval(), video(1)
    batch = batch_of(found, (3,))
    alone = batch_of(found[:, 3:])
    assert torch.equal(model.tokens(batch)[:, 3:], model.tokens(alone))
    inside = model.action_conditioner.features(found, batch.is_first)[:, 3:]
    torch.testing.assert_close(inside, model.action_conditioner.features(found[:, 3:]))


# Learning: what the loss is about


def test_only_hidden_tokens_are_learned_and_the_prompt_is_never_hidden(small: Any) -> None:
    model, tokens = small().world_model, torch.randint(24, (2, 5, 12))
    batch, codes = batch_of(video(), (3,)), torch.randn(2, 4, 6)
    every = {"share": torch.ones(2), "hidden": torch.zeros(2, 5, 12)}
    dynamics, seen = model.dynamics_model, []
    plain = dynamics.inputs

    def inputs(tokens: Tensor, action: Tensor, acted: Tensor, hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return plain(tokens, action, acted, hidden)

    dynamics.inputs = inputs  # type: ignore[method-assign]
    loss = model.token_loss(tokens, codes, batch, Rand(draws=every))[0]
    assert not seen[0][:, 0].any() and not seen[0][0, 3].any()  # first frames of episodes
    assert seen[0][1, 1:].all()
    none = {"share": torch.zeros(2), "hidden": torch.full((2, 5, 12), 0.999)}
    none["hidden"][:, 2, 4] = 0  # one token alone
    one = model.token_loss(tokens, codes, batch, Rand(draws=none))[0]
    logits = dynamics.logits(
        tokens, torch.cat([torch.zeros(2, 1, 6), codes], 1), batch.is_first, seen[-1]
    )
    expected = F.cross_entropy(logits[:, 2, 4], tokens[:, 2, 4])
    torch.testing.assert_close(one, expected)
    assert not torch.equal(loss, one)


def test_the_share_of_hidden_tokens_is_drawn_for_each_row(small: Any) -> None:
    low, high = 0.3, 0.6
    model = small(**{"model.dynamics.mask_low": low, "model.dynamics.mask_high": high}).world_model
    tokens = torch.zeros(400, 5, 40, dtype=torch.int64)
    shares = model._hidden(tokens, Rand.seeded(0)).float().mean((1, 2))
    assert shares.min() > low - 0.12 and shares.max() < high + 0.12
    assert abs(float(shares.mean()) - 0.45) < 0.02 and float(shares.std()) > 0.07


def test_gradients_reach_the_encoder_through_the_codes(small: Any) -> None:
    """Without a straight-through step the encoder learns from its commitment alone."""
    for kind in ("vq", "fsq"):
        over = {"model.tokenizer.quantizer.kind": kind, "model.tokenizer.quantizer.beta": 0.0}
        model = small(**over).world_model
        model.tokenizer_loss(batch_of(video()))[0].backward()
        for name, parameter in model.observation_encoder.net.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_code_loss_moves_codes_alone(small: Any) -> None:
    model = small().world_model
    codes = model.observation_encoder.quantizer
    found = codes(model.observation_encoder.features(video()))
    found.codebook_loss().mean().backward()
    assert codes.codebook.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.observation_encoder.net.parameters())


def test_features_are_compared_by_direction(small: Any) -> None:
    codes = small().world_model.observation_encoder.quantizer
    x = torch.randn(50, 6)
    assert torch.equal(codes(x).index, codes(7 * x).index)
    codes.codebook.data *= torch.rand(24, 1) + 0.5  # lengths of rows do not matter either
    near = F.normalize(x, dim=-1) @ F.normalize(codes.codebook, dim=-1).T
    assert torch.equal(codes(x).index, near.argmax(-1))


def test_the_dynamics_learns_nothing_of_what_it_builds_on(small: Any) -> None:
    learner = small()
    learner.total = dict.fromkeys(learner.optimizers, 4)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    learner.update(batch_of(video(3)), "dynamics", rand=Rand.seeded(0))
    moved = {k for k, v in learner.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(name.startswith("world_model.dynamics_model.") for name in moved)


# Codes: none stays idle


def chosen(index: Tensor) -> Quantized:
    """A batch whose features (N, 6) chose rows `index` (N,)."""
    features = torch.randn(len(index), 6)
    return Quantized(features, index, features, features)


def test_idle_codes_begin_anew_as_codes_in_use(small: Any) -> None:
    codes = small().world_model.action_conditioner.quantizer
    assert isinstance(codes, CodeBook) and codes.config.reset == 3
    index, before = torch.tensor([1, 4, 4, 4]), codes.codebook.detach().clone()
    revived = [int(codes.revive(chosen(index), Rand.seeded(i))) for i in range(3)]
    assert revived == [0, 0, 3]  # not before the third update
    used = before[[1, 4]]
    for row in (0, 2, 3):
        assert any(torch.equal(codes.codebook[row], each) for each in used)
    assert torch.equal(codes.codebook[[1, 4]], used) and codes.idle.tolist() == [0] * 5


def test_revived_codes_take_all_codes_in_use_alike(small: Any) -> None:
    codes = small().world_model.action_conditioner.quantizer
    start, counts = codes.codebook.detach().clone(), torch.zeros(2)
    for seed in range(300):
        codes.codebook.data.copy_(start)
        codes.idle.fill_(2)
        codes.revive(chosen(torch.tensor([1, 4, 4, 4])), Rand.seeded(seed))
        counts += torch.stack([(codes.codebook[0] == start[i]).all() for i in (1, 4)])
    assert (counts / 300 - 0.5).abs().max() < 0.1


def test_codes_begin_at_the_centres_of_what_was_learned_without_them(small: Any) -> None:
    learner = small(**{"model.latent_action.quantizer.open": 2})
    learner.total = dict.fromkeys(learner.optimizers, 4)
    part, batch = learner.world_model.action_conditioner, batch_of(video(3))
    codes = part.quantizer
    assert isinstance(codes, CodeBook) and codes.passing
    free = codes.chosen(part.features(batch.obs["image"]))
    assert torch.equal(free.output, free.inputs)  # no code in between
    before = codes.codebook.detach().clone()
    for number in range(2):
        learner.update(batch, "latent_action", rand=Rand.seeded(number))
    assert not codes.passing and int(codes.age) == 2
    assert (codes.codebook.norm(dim=-1) - 1).abs().max() < 1e-5
    assert (codes.codebook - before).abs().max() > 0.1
    found = codes.chosen(part.features(batch.obs["image"]))
    torch.testing.assert_close(found.output, codes.rows(found.index))
    near = (found.inputs * found.chosen).sum(-1)
    assert float(near.mean()) > 0.9  # centres of features lie among them


# MaskGIT: exactly the scheduled number, in every row; the prompt stays


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
@pytest.mark.parametrize("steps", [1, 3, 8, 25])
def test_every_row_commits_what_the_schedule_says(schedule: Any, steps: int) -> None:
    config = DynamicsConfig(steps=steps, schedule=schedule, temperature=2.0)
    tokens, hidden = torch.zeros(4, 16, dtype=torch.int64), torch.ones(4, 16, dtype=torch.bool)
    scheduled = maskgit.committed(schedule, 16, steps)
    assert scheduled == sorted(scheduled) and scheduled[-1] == 16 and len(scheduled) == steps
    made = {now.number: now.committed for now in maskgit.rounds(config, 16)}
    if schedule != "exponential":  # which commits a sixteenth at least, sooner than it must
        assert all(scheduled[number] == count for number, count in made.items())
    scale = torch.tensor([0.01, 1.0, 10.0, 100.0])[:, None, None]  # rows of other confidence
    for now in maskgit.rounds(config, 16):
        before, known = tokens, ~hidden
        logits = scale * torch.randn(4, 16, 9)
        drawn = maskgit.draw(logits, tokens, hidden, now, torch.randn(4, 16, 9))
        tokens, hidden = drawn.tokens, drawn.hidden
        assert ((~hidden).sum(1) == now.committed).all()
        assert torch.equal(tokens[known], before[known])  # what is committed stays
        assert not (hidden & known).any()
    assert not hidden.any()


def test_the_surest_tokens_are_committed_first() -> None:
    logits = torch.zeros(1, 6, 3)
    logits[0, :, 0] = torch.tensor([0.1, 5.0, 0.2, 4.0, 0.3, 3.0])
    now = maskgit.Round(0, 3, 1.0)
    hidden = torch.ones(1, 6, dtype=torch.bool)
    drawn = maskgit.draw(logits, torch.zeros(1, 6, dtype=torch.int64), hidden, now, None)
    assert drawn.hidden.tolist() == [[True, False, True, False, True, False]]


def test_draws_follow_the_softmax_at_the_rounds_temperature() -> None:
    from worldflux.core.rand import gumbel

    logits = torch.tensor([0.0, 1.0, 2.0, 0.5]).expand(20_000, 1, 4)
    noise = Rand.seeded(0).draw("x", (20_000, 1, 4), gumbel)
    hidden = torch.ones(20_000, 1, dtype=torch.bool)
    for temperature in (1.0, 2.0):
        now = maskgit.Round(0, 1, temperature)
        found = maskgit.draw(logits, torch.zeros_like(hidden).long(), hidden, now, noise).tokens
        share = torch.bincount(found[:, 0], minlength=4) / 20_000
        torch.testing.assert_close(share, (logits[0, 0] / temperature).softmax(-1), atol=0.015,
                                   rtol=0)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("kind", ["maskgit", "causal"])
def test_the_past_is_never_overwritten(small: Any, kind: str) -> None:
    model = small(**{"model.dynamics.kind": kind}).world_model.eval()
    state = model.observe_sequence(batch_of(video(2, 3))).at(-1)
    path = model.rollout(state, torch.randint(5, (2, 2)), rand=Rand.seeded(0))
    last = path.states[-1]
    assert torch.equal(last["tokens"][:, :3], state["tokens"][:, :3])
    assert torch.equal(last["tokens"][:, :4], path.states[1]["tokens"][:, :4])
    assert last["length"].tolist() == [5, 5]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "actions"), KINDS)
def test_kept_keys_and_values_give_the_same_tokens(small: Any, kind: str, actions: str) -> None:
    """Rows of other lengths too, and on past the point where the oldest frame goes."""
    model = small(
        **{"model.dynamics.kind": kind, "model.dynamics.actions": actions}
    ).world_model.eval()
    kept = model.observe_sequence(batch_of(video(3, 3), (2,))).at(-1)
    assert kept["length"].tolist() == [1, 3, 3]
    without = kept
    for t in range(5):
        action = torch.randint(5, (3,))
        kept = model.transition(kept, action, rand=Rand.seeded(t))
        without = model.transition(without.without_caches(), action, rand=Rand.seeded(t))
        assert KEYS in kept
        assert torch.equal(kept["tokens"], without["tokens"]), t
        torch.testing.assert_close(kept[KEYS], without[KEYS], rtol=1e-4, atol=1e-5)
    assert kept["length"].tolist() == [5, 5, 5]


@torch.no_grad()
def test_the_samplers_logits_are_those_of_training(small: Any) -> None:
    """A sampler with a path of its own drifts from what was learned."""
    model = small().world_model.eval()
    dynamics, c = model.dynamics_model, torch.randn(2, 5, 6)
    tokens, first = torch.randint(24, (2, 5, 12)), batch_of(video()).is_first
    hidden = torch.zeros(2, 5, 12, dtype=torch.bool)
    hidden[:, 4, ::2] = True
    trained = dynamics.logits(tokens, c, first, hidden)[:, 4]
    length = torch.full((2,), 4)
    past = dynamics._past({"tokens": tokens, "actions": c}, length)
    x = dynamics.inputs(tokens[:, 4:], c[:, 4:], length[:, None] > 0, hidden[:, 4:])
    torch.testing.assert_close(
        dynamics.outputs(dynamics.net.after(x, past))[:, 0], trained, rtol=1e-4, atol=1e-5
    )


# Frames: any size


@pytest.mark.parametrize(("shape", "patch"), [((3, 90, 160), 4), ((1, 10, 13), 4), ((3, 8, 8), 8)])
def test_frames_that_patches_do_not_divide_come_back(shape: tuple[int, ...], patch: int) -> None:
    found = video(2, 3, shape)
    patches = patchify(found, patch)
    rows, columns = -(-shape[1] // patch), -(-shape[2] // patch)
    assert patches.shape == (2, 3, rows * columns, patch * patch * shape[0])
    assert torch.equal(unpatchify(patches, patch, shape), found)
    top_left = found[:, :, :, :patch, :patch].movedim(2, -1).flatten(2)
    assert torch.equal(patches[:, :, 0], top_left)  # (row, column, channel)


def test_padding_has_no_part_in_the_loss(small: Any) -> None:
    """15 x 11 pixels in patches of 4: the frame alone is compared."""
    from worldflux.specs import TensorSpec
    from worldflux_genie.world_model import GenieWorldModel

    spec = TensorSpec((3, 15, 11), "uint8", low=0, high=255)
    model = GenieWorldModel(small().config, {"image": spec})
    loss, parts = model.tokenizer_loss(batch_of(video(2, 5, spec.shape)))
    assert model.decode(model.encode(video(2, 1, spec.shape)[:, 0])).predictions["image"].shape == (
        2, *spec.shape
    )  # fmt: skip
    assert torch.isfinite(loss) and set(parts) == {"mse", "code", "commitment", "index", "inputs"}
