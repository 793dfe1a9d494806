"""Equality with the published Delta-IRIS, tensor by tensor (see `delta_iris.md` by the file).

`in/rollout`'s number of tokens fed at a step is left out: ours keeps the frame's token back.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.nn.actor_critic import before_end, lambda_returns
from worldflux.nn.pixels import unit
from worldflux.nn.symlog import symexp, symlog
from worldflux.nn.two_hot import two_hot
from worldflux.specs import TensorSpec
from worldflux_iris.delta_iris import behavior
from worldflux_iris.delta_iris.agent import DeltaIRISAgent
from worldflux_iris.delta_iris.config import AgentConfig, ConvConfig, DeltaIRISConfig, ModelConfig
from worldflux_iris.delta_iris.dynamics import LIMIT
from worldflux_iris.delta_iris.networks import flat
from worldflux_iris.delta_iris.reference import load_weights, place
from worldflux_iris.delta_iris.tokenizer import COMMITMENT, L1, WORST


@pytest.fixture(scope="module")
def golden(delta_golden: Any) -> Any:
    return delta_golden


def conv(config: dict[str, Any], groups: int) -> ConvConfig:
    return ConvConfig(
        channels=config["num_channels"],
        multipliers=tuple(config["mult"]),
        down=tuple(map(bool, config["down"])),
        latent=config["latent_dim"],
        groups=groups,
    )


def configured(config: dict[str, Any], kind: str) -> DeltaIRISConfig:
    """Ours, of the sizes and weights that the golden file tells; `kind` "" or "twohot"."""
    more = config["twohot"] if kind else {"world_model": {}, "actor_critic": {}}
    tokenizer, optimizer = config["tokenizer"], config["optimizer"]
    wm = config["world_model"] | more["world_model"]
    actor = config["actor_critic"] | more["actor_critic"]
    net, groups = wm["transformer_config"], tokenizer["group_norm_groups"]
    model = ModelConfig(
        tokens=tokenizer["num_tokens"],
        vocab=tokenizer["codebook_size"],
        code_dim=tokenizer["codebook_dim"],
        action_channels=tokenizer["decoder_act_channels"],
        revive_updates=tokenizer["max_codebook_updates_with_revival"],
        encoder=conv(tokenizer["encoder_config"], groups),
        decoder=conv(tokenizer["decoder_config"], groups),
        frame=conv(tokenizer["frame_cnn_config"], groups),
        context=conv(wm["frame_cnn_config"], groups),
        max_blocks=net["max_blocks"],
        layers=net["num_layers"],
        heads=net["num_heads"],
        dim=net["embed_dim"],
        two_hot_rewards=wm["two_hot_rews"],
        scale_tokens=wm["latents_weight"],
        scale_reward=wm["rewards_weight"],
        scale_end=wm["ends_weight"],
    )
    agent = AgentConfig(
        lr=optimizer["learning_rate"],
        tokenizer_decay=optimizer["weight_decay"],
        model_decay=optimizer["weight_decay"],
        clip=optimizer["max_grad_norm"],
        burn_in=actor["burn_in_length"],
        horizon=actor["imagination_horizon"],
        gamma=actor["gamma"],
        lam=actor["lambda_"],
        entropy=actor["entropy_weight"],
        tau=actor["target_tau"],
        two_hot_values=actor["two_hot_rets"],
        frame=conv(actor["model"]["frame_encoder_config"], groups),
        lstm_dim=actor["model"]["lstm_dim"],
    )
    return DeltaIRISConfig(model=model, agent=agent)


def made(golden: Any, kind: str = "") -> DeltaIRISAgent:
    c = golden.config["tokenizer"]
    image = TensorSpec((c["image_channels"], c["image_size"], c["image_size"]), "uint8", 0, 255)
    action = {"action": TensorSpec((), "int64", n=c["num_actions"])}
    found = DeltaIRISAgent(configured(golden.config, kind), {"image": image}, action)
    weights, prefix = golden.float_weights(), "twohot."
    own = {k: v for k, v in weights.items() if not k.startswith(prefix)}
    if kind:
        others = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        own = {k: v for k, v in own.items() if k.startswith("tokenizer.")} | others
    load_weights(found, own)
    return found


@pytest.fixture
def agent(golden: Any) -> DeltaIRISAgent:
    return made(golden)


def named(agent: DeltaIRISAgent, names: list[str]) -> list[Tensor]:
    own = dict(agent.named_parameters())
    places = [place(name.removeprefix("twohot.")) for name in names]
    return [where.of(own[where.name]) for where in places]


def grad_norms(agent: DeltaIRISAgent, names: list[str], loss: Tensor) -> Tensor:
    own = dict(agent.named_parameters())
    for parameter in own.values():
        parameter.grad = None
    loss.backward()
    places = [place(name.removeprefix("twohot.")) for name in names]
    return torch.stack([where.of(own[where.name].grad).norm() for where in places])


def steps(image: Tensor, **more: Any) -> Batch:
    first = torch.zeros(image.shape[:2], dtype=torch.bool)
    flags = {"is_last": torch.zeros_like(first), "is_terminal": torch.zeros_like(first)}
    return Batch(**{"obs": {"image": image}, "is_first": first, **flags, **more})


def shifted(given: dict[str, Tensor]) -> Batch:
    """Their steps as ours: what follows an action arrives with the next step."""
    mask, ends = given["mask_padding"], given["ends"].bool()
    none = torch.zeros_like(mask[:, :1])
    terminal = torch.cat([none, ends & mask], 1)
    return steps(
        torch.cat([given["obs_u8"], given["obs_u8"][:, -1:]], 1),
        action=torch.cat([given["actions"], given["actions"][:, :1]], 1),
        reward=torch.cat([none.float(), given["rewards"]], 1),
        is_last=terminal,
        is_terminal=terminal,
        mask=torch.cat([none, mask], 1) | torch.cat([mask, none], 1),
    )


def test_parts(golden: Any, agent: DeltaIRISAgent) -> None:
    given, dynamics = golden.group("in/parts"), agent.world_model.dynamics_model
    frame = unit(given["obs_u8"]).flatten(0, 1)
    golden.check_group(
        "parts",
        {
            "tokenizer_frame_cnn": dynamics.tokenizer.frame(frame),
            "world_model_frame_cnn": dynamics.frame_token(frame),
            "actor_cnn": flat(agent.actor.cnn(frame)),
            "decoder_out": dynamics.tokenizer.decoder(given["decoder_in"].flatten(0, 1)),
        },
    )


def test_layers_keep_small_numbers(golden: Any, agent: DeltaIRISAgent) -> None:
    given, dynamics = golden.group("in/small"), agent.world_model.dynamics_model
    block = dynamics.transformer.blocks[0]
    change = dynamics.tokenizer.quantized(given["z"].flatten(0, 1))
    golden.check_group(
        "small",
        {
            "resblock": dynamics.tokenizer.frame[1](given["features"]),
            "block": block(given["tokens"], causal=True),
            "mlp": given["tokens"] + block.mlp(block.norm2(given["tokens"])),
            "tokens_out": change.found.index,
            "q": change.restored,
        },
    )


def test_functions(golden: Any, agent: DeltaIRISAgent) -> None:
    given, bins = golden.group("in/fn"), agent.actor.bins
    x = symlog(given["x"])
    hot = two_hot(x.clamp(-LIMIT, LIMIT - 1e-5), bins)
    golden.check_group(
        "fn",
        {
            "symlog": x,
            "symexp": symexp(given["x"][2:10]),
            "two_hot": hot,
            "mean_of_two_hot": (hot * bins).sum(-1),
            "softmax_mean": (given["logits"].softmax(-1) * bins).sum(-1),
            "mask_after_first_done": before_end(given["ends"]),
        },
    )


def test_tokenizer(golden: Any, agent: DeltaIRISAgent) -> None:
    given, model = golden.group("in/tok"), agent.world_model
    tokenizer, frames = model.dynamics_model.tokenizer, unit(given["obs_u8"])
    before, after = (x.flatten(0, 1) for x in (frames[:, :-1], frames[:, 1:]))
    action = model.condition(given["actions"][:, :-1].flatten())
    change = tokenizer.change(before, action, after)
    cosine = tokenizer.quantizer.scores(tokenizer.project(change.latents))
    best = cosine.topk(2).values
    decoded = tokenizer.decode(before, action, change.restored)
    golden.check_group(
        "tok",
        {
            "z": tokenizer.encode(before, action, after),
            "cosine": cosine,
            "margin": best[..., 0] - best[..., 1],
            "tokens": tokenizer.tokens(before, action, after),
            "q": change.restored,
            "decoded": decoded,
            "decoded_u8": tokenizer.shown(before, action, change.found.index),
        },
    )
    words = tokenizer.words(golden.group("in/tok_embed")["tokens"])
    golden.check_group("tok_embed", {"q": words})
    batch = steps(given["obs_u8"], action=given["actions"], mask=given["mask_padding"])
    found, _ = model.tokenizer_loss(batch)
    parts, names = found.components, golden.config["grad_keys"]["tok_loss"]
    golden.check_group(
        "tok_loss",
        {
            "commitment_loss": COMMITMENT * parts["commitment"],
            "reconstruction_loss_l1": L1 * parts["l1"],
            "reconstruction_loss_l2": parts["l2"],
            "reconstruction_loss_l2_worst_pixel": WORST * parts["worst"],
            "loss_total": found.loss,
            "grad_norms": grad_norms(agent, names, found.loss),
        },
    )
    result = agent.update(batch, "tokenizer").metrics
    golden.check_group(
        "tok_train",
        {
            "loss_total": torch.as_tensor(result["loss"]),
            "codebook": tokenizer.quantizer.codebook,
            "codewords_freqs": tokenizer.quantizer.used,
            "num_codebook_updates": tokenizer.quantizer.moves,
            "codebook_entropy": torch.as_tensor(result["codebook_entropy"]),
        },
    )


@pytest.mark.parametrize("case", ["revive", "barred", "collapse"])
def test_the_codebook_moves_and_revives(golden: Any, agent: DeltaIRISAgent, case: str) -> None:
    given, tokenizer = golden.group(f"in/quant_{case}"), agent.world_model.dynamics_model.tokenizer
    limit = golden.config["quantizer_cases"][case]["max_codebook_updates_with_revival"]
    tokenizer.revive_updates = limit
    quantizer = tokenizer.quantizer
    quantizer.codebook.copy_(given["codebook"])
    quantizer.used.copy_(given["codewords_freqs"])
    change = tokenizer.quantized(given["z"].flatten(0, 1))
    draws = {"expired": given["perm_expired"], "inputs": given["perm_z"].argsort()}
    moved = deepcopy(quantizer)
    moved.move(change.found.inputs.detach(), change.found.index)
    expired = int(moved.expired().sum())  # theirs counts these, though inputs may be too few
    told = tokenizer.follow(change.found.inputs.detach(), change.found.index, Rand(draws=draws))
    revived = int(told["revived"])
    golden.check_group(
        f"quant_{case}",
        {
            "permuted": torch.tensor([expired, len(given["perm_z"])]) * (revived > 0),
            "tokens": change.found.index,
            "q": change.restored,
            "commitment_loss": COMMITMENT * change.found.commitment_loss().mean(),
            "codebook_after": quantizer.codebook,
            "codewords_freqs_after": quantizer.used,
            "codewords_revived": torch.tensor(expired * (revived > 0)),
            "codebook_entropy": told["codebook_entropy"],
        },
    )


@pytest.mark.parametrize("group", ["wm", "wm_real", "twohot_wm"])
def test_transformer(golden: Any, group: str) -> None:
    agent = made(golden, "twohot" if group == "twohot_wm" else "")
    given, model = golden.group("in/wm"), agent.world_model
    dynamics, batch = model.dynamics_model, shifted(golden.group("in/wm"))
    action = model.condition(given["actions"].flatten()).unflatten(0, given["actions"].shape)
    tokens = model.sequence_tokens(given["obs_u8"], action)
    if group != "wm_real":
        none = torch.zeros_like(given["latent_tokens"][:, :1])
        tokens = torch.cat([given["latent_tokens"], none], 1)
    out = dynamics.sequence(given["obs_u8"], action, tokens, batch.is_first[:, :-1])
    terms, told = model.terms(out, tokens, batch)
    c = model.config.model
    scaled = [c.scale_tokens, c.scale_reward, c.scale_end]
    weighted = dict(
        zip(terms, (s * t for s, t in zip(scaled, terms.values(), strict=True)), strict=True)
    )
    valid = batch.transitions().valid
    sign = given["rewards"].sign().long() + 1
    if c.two_hot_rewards:
        sign = two_hot(symlog(given["rewards"]).clamp(-LIMIT, LIMIT - 1e-5), dynamics.bins)
    total = torch.stack(list(weighted.values())).sum()
    found = {
        "latent_tokens": tokens[:, :-1],
        "labels_latents": tokens[:, :-1][valid[:, :-1]].flatten(),
        "labels_rewards": sign[valid],
        "labels_ends": batch.is_terminal[:, 1:][valid],
        "logits_latents": dynamics.token(out[:, :, 1:-1]).flatten(1, 2),
        "logits_rewards": dynamics.reward(out[:, :, 1]),
        "logits_ends": dynamics.end(out[:, :, 1]),
        "loss_latents": weighted["tokens"],
        "loss_rewards": weighted["rewards"],
        "loss_ends": weighted["ends"],
        "loss_total": total,
        "latent_accuracy": torch.as_tensor(told["tokens_accuracy"]),
        "grad_norms": grad_norms(agent, golden.config["grad_keys"][group], total),
        "output_sequence": out,
        "sequence": embedded(dynamics, given["obs_u8"], action, tokens),
    }
    golden.check_group(group, {k: v for k, v in found.items() if k in golden.outputs(group)})
    if group == "wm_real":
        loss = model.loss(batch, "world_model")
        torch.testing.assert_close(loss.loss, total)


def embedded(dynamics: Any, frames: Tensor, action: Tensor, tokens: Tensor) -> Tensor:
    seen = dynamics.frame_token(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    acted = action @ dynamics.actions.weight
    return torch.cat([seen[:, :, None], acted[:, :, None], dynamics.words(tokens)], 2).flatten(1, 2)


@torch.no_grad()
def test_transformer_in_pieces(golden: Any, agent: DeltaIRISAgent) -> None:
    given, dynamics = golden.group("in/wm"), agent.world_model.dynamics_model
    action = agent.world_model.condition(given["actions"].flatten())
    action = action.unflatten(0, given["actions"].shape)
    none = torch.zeros_like(given["latent_tokens"][:, :1])
    tokens = torch.cat([given["latent_tokens"], none], 1)
    x = embedded(dynamics, given["obs_u8"], action, tokens)
    size, cache = dynamics.tokens + 2, dynamics.transformer.cache(len(x), x)
    found: dict[str, list[Tensor]] = {"output_sequence": [], "logits_latents": []}
    found |= {"logits_rewards": [], "logits_ends": []}
    counts, begin = [], 0
    for piece in x.split(golden.config["wm_cache_chunks"], 1):
        out = dynamics.transformer(piece, cache)
        place_in = torch.arange(begin, begin + piece.shape[1]) % size
        begin += piece.shape[1]
        said, acted = (place_in > 0) & (place_in < size - 1), place_in == 1
        found["output_sequence"].append(out)
        found["logits_latents"].append(dynamics.token(out[:, said]))
        found["logits_rewards"].append(dynamics.reward(out[:, acted]))
        found["logits_ends"].append(dynamics.end(out[:, acted]))
        counts.append([int(said.sum()), int(acted.sum()), int(acted.sum())])
    joined = {name: torch.cat(parts, 1) for name, parts in found.items()}
    golden.check_group("wm_cache", {"counts": torch.tensor(counts), **joined})
    short = dynamics.transformer(x[:, : size + 3])
    place_in = torch.arange(size + 3) % size
    said = (place_in > 0) & (place_in < size - 1)
    golden.check_group(
        "wm_partial",
        {
            "logits_latents": dynamics.token(short[:, said]),
            "logits_rewards": dynamics.reward(short[:, place_in == 1]),
        },
    )
    frames = given["obs_u8"][:, :3]
    burnt = x[:, : 2 * size + 1]
    cache = dynamics.transformer.cache(len(x), x)
    golden.check("wm_burn/output_sequence", dynamics.transformer(burnt, cache))
    golden.check("wm_burn/cache_size", cache.length[0])
    golden.check("wm_burn/blocks_left", (cache.window - cache.length[:1]) / size)
    assert frames.shape[1] == 3


@pytest.mark.parametrize("kind", ["", "twohot"])
def test_actor_critic(golden: Any, kind: str) -> None:
    agent, given = made(golden, kind), golden.group("in/ac")
    actor, burnt = agent.actor, unit(given["burnin_u8"])
    h, c = actor.burned_in(burnt, torch.zeros(burnt.shape[:2], dtype=torch.bool))
    found = {"h_burnin": h, "c_burnin": c}
    heads = []
    for t in range(given["obs_u8"].shape[1]):
        h, c = actor(unit(given["obs_u8"][:, t]), h, c)
        heads.append(actor.heads(h))
    logits, values = (torch.stack(x, 1) for x in zip(*heads, strict=True))
    found |= {"logits_actions": logits, "logits_values": values, "h": h, "c": c}
    group = "twohot_ac" if kind else "ac"
    found["values"] = actor.scalar(values[:, -1])
    golden.check_group(group, {k: v for k, v in found.items() if k in golden.outputs(group)})


def test_lambda_returns(golden: Any, agent: DeltaIRISAgent) -> None:
    given, c = golden.group("in/lambda"), agent.config.agent
    following = torch.cat([given["values"][:, 1:], given["value_bootstrap"][:, None]], 1)
    found = lambda_returns(given["rewards"], given["ends"], following, c.gamma, c.lam)
    golden.check_group("lambda", {"returns": found})


@pytest.mark.parametrize("group", ["imagine", "twohot_imagine"])
def test_imagination(golden: Any, group: str) -> None:
    agent, given = made(golden, group.removesuffix("imagine")), golden.group(f"in/{group}")
    draws = {
        "policy/action": given["actions"].T,
        "imagined/end": given["ends"].T,
        "imagined/tokens": given["tokens"].transpose(0, 1),
    }
    if "reward_class" in given:
        draws["imagined/reward"] = given["reward_class"].T
    batch = steps(given["obs_u8"], action=given["past_actions"], mask=given["mask_padding"],
                  context=given["obs_u8"].shape[1] - 1)  # fmt: skip
    rand = Rand(draws=draws)
    start, player = behavior.started(agent, batch, rand)
    path = behavior.dreamt(agent, start, player, rand.under("imagined/"))
    loss, told = behavior.learnt(agent, player, path)
    reward, ended = (path.to_tensor(k)[1:].T for k in ("reward", "ended"))
    targets, c = torch.stack(player.targets, 1), agent.config.agent
    mask, logits = before_end(ended), torch.stack(player.logits, 1)
    log = logits.log_softmax(-1)
    entropy = -(log.exp() * log).sum(-1)
    norms = grad_norms(agent, golden.config["grad_keys"][group], loss)
    names = golden.config["delta_keys"][group]
    before = [x.clone() for x in named(agent, names)]
    agent.update(batch, "actor_critic", rand=Rand(draws=draws))
    golden.check_group(
        group,
        {
            "frames_u8": torch.stack([s["frame"] for s in path.states[1:]], 1),
            "logits_actions": logits,
            "logits_values": torch.stack(player.values, 1),
            "target_values": targets[:, :-1],
            "value_bootstrap": targets[:, -1],
            "rewards": reward,
            "ends": ended,
            "lambda_returns": lambda_returns(reward, ended, targets[:, 1:], c.gamma, c.lam),
            "mask": mask,
            "loss_actions": told["loss/policy"],
            "loss_entropy": told["loss/entropy"],
            "loss_values": told["loss/value"],
            "loss_total": loss,
            "policy_entropy": entropy[mask].mean(),
            "grad_norms": norms,
            "delta_norms": torch.stack(
                [(x - y).norm() for x, y in zip(named(agent, names), before, strict=True)]
            ),
        },
    )


@torch.no_grad()
def test_rollout_beyond_the_window(golden: Any, agent: DeltaIRISAgent) -> None:
    given, model = golden.group("in/rollout"), agent.world_model
    past = torch.cat([given["past_actions"], given["past_actions"][:, :1]], 1)
    states = model.observe_sequence(steps(given["obs_u8"], action=past))
    state, said = states.at(-1), []
    out: list[Tensor] = []

    def heard(module: Any, given: Any, logits: Tensor) -> None:
        out.append(given[0])
        said.append(logits)

    hook = model.dynamics_model.token.register_forward_hook(heard)
    draws = {"tokens": given["tokens"], "reward": given["reward_class"], "end": given["ends"]}
    rand = Rand(draws={k: v.transpose(0, 1) for k, v in draws.items()})
    found: dict[str, list[Tensor]] = {}
    for t, action in enumerate(given["actions"].T):
        state = model.transition(state, action, rand=rand.at(t))
        told = {
            "frames_u8": state["frame"], "rewards": state["reward"], "ends": state["ended"],
            "logits_rewards": state["reward_logits"], "logits_ends": state["end_logits"],
            "cache_size": state["cache.length"],
        }  # fmt: skip
        for name, value in told.items():
            found.setdefault(name, []).append(value)
    hook.remove()
    k = model.config.model.tokens
    joined = {name: torch.stack(values) for name, values in found.items()}
    joined["frames_u8"] = joined["frames_u8"].transpose(0, 1)
    joined["logits_latents"] = torch.stack(said).unflatten(0, (-1, k)).transpose(1, 2)
    joined["output_sequence"] = torch.stack(out).unflatten(0, (-1, k)).transpose(1, 2)
    for name, value in joined.items():
        golden.check(f"rollout/{name}", value)
    elsewhere = {"first_output_sequence", "input_lengths"}
    assert golden.outputs("rollout") == joined.keys() | elsewhere


def test_the_burn_in_of_a_rollout(golden: Any, agent: DeltaIRISAgent) -> None:
    given, model = golden.group("in/rollout"), agent.world_model
    past = torch.cat([given["past_actions"], given["past_actions"][:, :1]], 1)
    action = model.condition(past.flatten()).unflatten(0, past.shape)
    tokens = model.sequence_tokens(given["obs_u8"], action)
    x = embedded(model.dynamics_model, given["obs_u8"], action, tokens)
    length = golden.tensors["out/rollout/first_output_sequence"].shape[1]
    golden.check("rollout/first_output_sequence", model.dynamics_model.transformer(x[:, :length]))


def given_tokens_step(agent: DeltaIRISAgent, given: dict[str, Tensor]) -> dict[str, Any]:
    model, batch = agent.world_model, shifted(given)
    c, none = model.config.model, torch.zeros_like(given["latent_tokens"][:, :1])
    tokens = torch.cat([given["latent_tokens"], none], 1)
    action = model.condition(given["actions"].flatten()).unflatten(0, given["actions"].shape)

    def compute(b: Batch, rand: Rand | None) -> tuple[Tensor, dict[str, Tensor]]:
        frames, first = b.obs["image"][:, :-1], b.is_first[:, :-1]
        out = model.dynamics_model.sequence(frames, action, tokens, first)
        terms, _ = model.terms(out, tokens, b)
        scales = (c.scale_tokens, c.scale_reward, c.scale_end)
        return sum(s * t for s, t in zip(scales, terms.values(), strict=True)), terms

    return agent.step("world_model", compute, batch)


@pytest.mark.parametrize("phase", ["tokenizer", "world_model", "actor_critic"])
def test_three_updates(golden: Any, agent: DeltaIRISAgent, phase: str) -> None:
    short = {"tokenizer": "tok", "world_model": "wm", "actor_critic": "ac"}[phase]
    group, rand = f"opt_{short}", Rand()
    if phase == "actor_critic":
        given = golden.group("in/imagine")
        batch = steps(given["obs_u8"], action=given["past_actions"], mask=given["mask_padding"],
                      context=given["obs_u8"].shape[1] - 1)  # fmt: skip
        rand = Rand(
            draws={
                "policy/action": given["actions"].T,
                "imagined/end": given["ends"].T,
                "imagined/reward": given["reward_class"].T,
                "imagined/tokens": given["tokens"].transpose(0, 1),
            }
        )
    elif phase == "tokenizer":
        given = golden.group("in/tok")
        batch = steps(given["obs_u8"], action=given["actions"], mask=given["mask_padding"])
    else:
        batch = shifted(golden.group("in/wm"))
    names = golden.config["delta_keys"][group]
    before = [x.clone() for x in named(agent, names)]
    count = golden.config["optimizer"]["steps"]
    if phase == "world_model":  # with the change's tokens of the file
        told = [given_tokens_step(agent, golden.group("in/wm")) for _ in range(count)]
    else:
        told = [dict(agent.update(batch, phase, rand=rand).metrics) for _ in range(count)]
    found = {
        "loss_total": torch.stack([torch.as_tensor(m["loss"]) for m in told]),
        "grad_norm_total": torch.stack([torch.as_tensor(m["grad_norm"]) for m in told]),
        "delta_norms": torch.stack(
            [(x - y).norm() for x, y in zip(named(agent, names), before, strict=True)]
        ),
    }
    if phase == "tokenizer":
        found["codebook"] = agent.world_model.dynamics_model.tokenizer.quantizer.codebook
    golden.check_group(group, found)


def test_every_group_is_compared(golden: Any) -> None:
    compared = {
        "parts", "small", "fn", "tok", "tok_embed", "tok_loss", "tok_train", "quant_revive",
        "quant_barred", "quant_collapse", "wm", "wm_real", "twohot_wm", "wm_cache", "wm_partial",
        "wm_burn", "ac", "twohot_ac", "lambda", "imagine", "twohot_imagine", "rollout", "opt_tok",
        "opt_wm", "opt_ac",
    }  # fmt: skip
    assert {name.split("/")[1] for name in golden.tensors if name.startswith("out/")} == compared
    assert isinstance(State({}), State)
