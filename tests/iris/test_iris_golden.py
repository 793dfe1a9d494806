"""Equality with the published implementation, tensor by tensor (see `iris.md` by the file)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.actor_critic import lambda_returns
from worldflux.specs import TensorSpec
from worldflux_iris.iris import behavior, losses
from worldflux_iris.iris.agent import IRISAgent
from worldflux_iris.iris.config import AgentConfig, IRISConfig, ModelConfig
from worldflux_iris.iris.reference import load_weights, place

Outputs = dict[str, Tensor]


def configured(config: dict[str, Any]) -> IRISConfig:
    """Ours, of the sizes and weights that the golden file tells."""
    tokenizer, wm, actor = (config[k] for k in ("tokenizer", "world_model", "actor_critic"))
    net, training = tokenizer["encoder"], config["training"]
    model = ModelConfig(
        channels=net["ch"],
        multipliers=tuple(net["ch_mult"]),
        res_blocks=net["num_res_blocks"],
        attention=tuple(net["attn_resolutions"]),
        groups=tokenizer["group_norm_groups"],
        latent_channels=net["z_channels"],
        vocab=tokenizer["vocab_size"],
        code_dim=tokenizer["embed_dim"],
        perceptual=0.0,
        max_blocks=wm["max_blocks"],
        layers=wm["num_layers"],
        heads=wm["num_heads"],
        dim=wm["embed_dim"],
        dropout=wm["embed_pdrop"],
    )
    agent = AgentConfig(
        horizon=training["imagine_horizon"],
        burn_in=training["burn_in"],
        gamma=training["gamma"],
        lam=training["lambda_"],
        entropy=training["entropy_weight"],
        conv_channels=tuple(actor["conv_channels"]),
        lstm_dim=actor["lstm_dim"],
    )
    return IRISConfig(model=model, agent=agent)


@pytest.fixture(scope="module")
def agent(golden: Any) -> IRISAgent:
    actor = golden.config["actor_critic"]
    obs = {"image": TensorSpec(tuple(actor["image"]), "uint8", 0, 255)}
    action = {"action": TensorSpec((), "int64", n=actor["act_vocab_size"])}
    found = IRISAgent(configured(golden.config), obs, action)
    load_weights(found, golden.float_weights())
    return found


def grad_norms(agent: IRISAgent, names: list[str], loss: Tensor) -> Tensor:
    own = dict(agent.named_parameters())
    for parameter in own.values():
        parameter.grad = None
    loss.backward()
    levels = len(agent.config.model.multipliers)
    places = [place(name, levels) for name in names]
    return torch.stack([where.of(own[where.name].grad).norm() for where in places])


def steps(image: Tensor, **more: Any) -> Batch:
    first = torch.zeros(image.shape[:2], dtype=torch.bool)
    first[:, 0] = True
    flags = {"is_last": torch.zeros_like(first), "is_terminal": torch.zeros_like(first)}
    return Batch(**{"obs": {"image": image}, "is_first": first, **flags, **more})


def test_tokenizer(golden: Any, agent: IRISAgent) -> None:
    image, model = golden.group("in/tok")["obs_u8"], agent.world_model
    tokenizer, flat = model.observation_encoder, image.flatten(0, 1)
    seen, quantized = tokenizer.quantized(flat)
    best = tokenizer.quantizer.scores(tokenizer.latents(flat)).topk(2).values
    side = tokenizer.side

    def mapped(x: Tensor) -> Tensor:
        return x.transpose(1, 2).unflatten(2, (side, side))

    found = model.loss(steps(image), "tokenizer")
    parts = found.components
    names = golden.config["grad_keys"]["tok"]
    golden.check_group(
        "tok",
        {
            "z": mapped(tokenizer.latents(flat)),
            "z_quantized": mapped(quantized.chosen),
            "tokens": model.observation_encoder({"image": flat})["tokens"],
            "margin": best[..., 0] - best[..., 1],
            "reconstruction": model.decoder_module.reconstruct(seen),
            "loss_total": found.loss,
            "commitment_loss": parts["codebook"] + parts["commitment"],
            "reconstruction_loss": parts["reconstruction"],
            "grad_norms": grad_norms(agent, names, found.loss),
        },
    )
    tokens = golden.group("in/tok_decode")["tokens"]
    frames = model.decode(State({"tokens": tokens}), keys=("image",)).predictions["image"]
    golden.check_group("tok_decode", {"frames": frames})


def blocks(golden: Any, agent: IRISAgent) -> tuple[Tensor, Tensor]:
    """Frames' tokens (B, T, N) and actions' tokens (B, T, D) of the group `wm`."""
    n = golden.config["tokenizer"]["tokens_per_frame"]
    rows = golden.group("in/wm")["tokens"].unflatten(1, (-1, n + 1))
    action = agent.world_model.condition(rows[..., n].flatten())
    return rows[..., :n], action.unflatten(0, rows.shape[:2])


def test_transformer(golden: Any, agent: IRISAgent) -> None:
    dynamics, (tokens, action) = agent.world_model.dynamics_model, blocks(golden, agent)
    first = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    out = dynamics.sequence(tokens, action, first)
    ahead = dynamics.ahead(out)
    predicted = {
        "logits_rewards": dynamics.sign(out[:, :, -1]),
        "logits_ends": dynamics.end(out[:, :, -1]),
    }
    ordered = torch.cat([ahead[:, :, 1:], ahead[:, :, :1]], 2)
    golden.check_group("wm", {"output_sequence": out, "logits_observations": ordered, **predicted})
    short = golden.tensors["out/wm_partial/logits_observations"].shape[1]
    golden.check("wm_partial/logits_observations", ordered.flatten(1, 2)[:, :short])
    golden.check("wm_partial/logits_rewards", predicted["logits_rewards"][:, :1])


def test_transformer_in_pieces(golden: Any, agent: IRISAgent) -> None:
    dynamics, (tokens, action) = agent.world_model.dynamics_model, blocks(golden, agent)
    x = torch.cat([dynamics.words(tokens), action[:, :, None]], 2).flatten(1, 2)
    cache, size = dynamics.transformer.cache(len(x), x), dynamics.tokens + 1
    found: dict[str, list[Tensor]] = {"observations": [], "rewards": [], "ends": []}
    counts, begin = [], 0
    with torch.no_grad():
        for piece in x.split(golden.config["wm_cache_chunks"], 1):
            out = dynamics.transformer(piece, cache)
            place = torch.arange(begin, begin + piece.shape[1]) % size
            begin += piece.shape[1]
            said, acted = place != size - 2, place == size - 1
            found["observations"].append(dynamics.token(out[:, said]))
            found["rewards"].append(dynamics.sign(out[:, acted]))
            found["ends"].append(dynamics.end(out[:, acted]))
            counts.append([int(said.sum()), int(acted.sum()), int(acted.sum())])
    joined = {f"logits_{name}": torch.cat(parts, 1) for name, parts in found.items()}
    golden.check_group("wm_cache", {"counts": torch.tensor(counts), **joined})


def shifted(given: dict[str, Tensor]) -> Batch:
    """Their steps as ours: what follows an action arrives with the next step."""
    mask, ends = given["mask_padding"], given["ends"].bool()
    none = torch.zeros_like(mask[:, :1])
    image = torch.cat([given["obs_u8"], given["obs_u8"][:, -1:]], 1)
    terminal = torch.cat([none, ends & mask], 1)
    stops = mask & ~torch.cat([mask[:, 1:], mask[:, -1:]], 1)  # no frame after that is kept
    return steps(
        image,
        action=torch.cat([given["actions"], given["actions"][:, :1]], 1),
        reward=torch.cat([none.float(), given["rewards"]], 1),
        is_last=terminal | torch.cat([none, stops], 1),
        is_terminal=terminal,
        mask=torch.cat([none, mask], 1) | torch.cat([mask, none], 1),
    )


def test_transformers_loss(golden: Any, agent: IRISAgent) -> None:
    given, model = golden.group("in/wm_loss"), agent.world_model
    batch = shifted(given)
    obs = {"image": batch.obs["image"][:, :-1].flatten(0, 1)}
    tokens = model.observation_encoder(obs)["tokens"].unflatten(0, given["actions"].shape)
    labels = losses.labels(batch, tokens, False)
    found = model.loss(batch, "world_model")
    names = golden.config["grad_keys"]["wm_loss"]
    golden.check_group(
        "wm_loss",
        {
            "obs_tokens": tokens,
            "labels_observations": labels.tokens.flatten(),
            "labels_rewards": labels.signs.flatten(),
            "labels_ends": labels.ends.flatten(),
            "loss_obs": found.components["tokens"],
            "loss_rewards": found.components["signs"],
            "loss_ends": found.components["ends"],
            "loss_total": found.loss,
            "grad_norms": grad_norms(agent, names, found.loss),
        },
    )


def test_actor_critic(golden: Any, agent: IRISAgent) -> None:
    given, actor = golden.group("in/ac"), agent.actor
    h, c = actor.burned_in(agent.normal(given["burnin_u8"]), given["burnin_mask"])
    found = {"h_burnin": h, "c_burnin": c}
    logits, values = [], []
    for t in range(given["obs_u8"].shape[1]):
        h, c = actor(agent.normal(given["obs_u8"][:, t]), h, c)
        for parts, value in zip((logits, values), actor.heads(h), strict=True):
            parts.append(value)
    found |= {"logits": torch.stack(logits, 1), "values": torch.stack(values, 1), "h": h, "c": c}
    golden.check_group("ac", found)


def returns(agent: IRISAgent, reward: Tensor, ended: Tensor, value: Tensor) -> Tensor:
    c = agent.config.agent
    found = lambda_returns(reward[:, :-1], ended[:, :-1], value[:, 1:], c.gamma, c.lam)
    return torch.cat([found, value[:, -1:]], 1)


def test_lambda_returns(golden: Any, agent: IRISAgent) -> None:
    given = golden.group("in/lambda")
    found = returns(agent, given["rewards"], given["ends"], given["values"])
    golden.check_group("lambda", {"returns": found})


def test_imagination(golden: Any, agent: IRISAgent) -> None:
    given = golden.group("in/imagine")
    horizon = given["actions"].shape[1]
    tokens = torch.cat([given["tokens"], given["tokens"][:, :1]], 1)  # the last frame is not seen
    draws = {
        "policy/action": given["actions"].T,
        "imagined/reward": given["reward_class"].T,
        "imagined/end": given["ends"].T,
        "imagined/tokens": tokens.transpose(0, 1),
    }
    rand = Rand(draws=draws)
    batch = steps(given["obs_u8"], mask=given["mask_padding"], context=given["obs_u8"].shape[1] - 1)
    start, memory, seen = behavior.started(agent, batch)
    player = behavior.Player(agent, memory, seen, rand.under("policy/"))
    path = behavior.dreamt(agent, start, player, rand.under("imagined/"))
    last = agent.world_model.transition(
        path.states[-1], given["actions"][:, -1], rand=rand.under("imagined/").at(horizon - 1)
    )
    loss, told = behavior.learnt(agent, player, path)
    frames = torch.stack(
        [agent.world_model.observation_encoder.pixels.back(x) for x in player.frames], 1
    )
    reward = torch.stack([s["reward"] for s in (*path.states[1:], last)], 1)
    ended = torch.stack([s["ended"] for s in (*path.states[1:], last)], 1)
    values = torch.stack(player.values, 1)
    names = golden.config["grad_keys"]["imagine"]
    golden.check_group(
        "imagine",
        {
            "start_tokens": start["tokens"],
            "h_burnin": memory[0],
            "observations_u8": (frames * 255).byte(),
            "logits_actions": torch.stack(player.logits, 1),
            "values": values,
            "rewards": reward,
            "ends": ended,
            "lambda_returns": returns(agent, reward, ended, values)[:, :-1],
            "loss_actions": told["loss/policy"],
            "loss_values": told["loss/value"],
            "loss_entropy": told["loss/entropy"],
            "loss_total": loss,
            "grad_norms": grad_norms(agent, names, loss),
        },
    )


@torch.no_grad()
def test_rollout_beyond_the_window(golden: Any, agent: IRISAgent) -> None:
    given, model = golden.group("in/rollout"), agent.world_model
    state = model.encode({"image": given["obs_u8"]})
    found: dict[str, list[Tensor]] = {"start_tokens": [state["tokens"]]}
    said: list[Tensor] = []
    hook = model.dynamics_model.token.register_forward_hook(lambda m, i, out: said.append(out))
    rand = Rand(draws={"tokens": given["tokens"]})
    for t, action in enumerate(given["actions"]):
        state = model.transition(state, action, rand=rand.at(t))
        found.setdefault("cache_size", []).append(state["cache.length"][:1] + 1)
        found.setdefault("logits_rewards", []).append(state["reward_logits"])
        found.setdefault("logits_ends", []).append(state["end_logits"])
    hook.remove()
    joined = {name: torch.stack(values) for name, values in found.items()}
    golden.check_group("rollout", {**joined, "logits_observations": torch.stack(said)})
