"""The golden file of TD-MPC2: its tensors, tolerances and configurations, and our model from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import pytest
import torch
from golden_file import GoldenFile, opened
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.specs import TensorSpec
from worldflux_tdmpc2.agent import TDMPC2Agent
from worldflux_tdmpc2.config import AgentConfig, ModelConfig, TDMPC2Config
from worldflux_tdmpc2.reference import load_weights


class Golden(GoldenFile):
    """One file of the form that `tdmpc2.md` beside it describes."""

    def weights(self, which: str) -> dict[str, Tensor]:
        """The reference's named weights of agent `main` or `epi`."""
        if which == "epi":
            return self.group("w/epi")
        return {k: v for k, v in self.group("w").items() if not k.startswith(("epi/", "rgb/"))}

    @cached_property
    def outputs(self) -> list[str]:
        """The names of all outputs."""
        return sorted(name for name in self.tensors if name.startswith("out/"))

    def agent_config(self, which: str) -> TDMPC2Config:
        """The configuration of agent `main` or `epi`."""
        sizes, default = self.config[which], self.config["defaults"]
        optimizer = self.config["optimizer"]["policy"]
        model = ModelConfig(
            latent_dim=sizes["latent_dim"],
            enc_dim=sizes["enc_dim"],
            enc_layers=sizes["num_enc_layers"],
            mlp_dim=sizes["mlp_dim"],
            num_q=sizes["num_q"],
            simnorm_dim=default["simnorm_dim"],
            dropout=self.config["dropout"],
            bins=default["num_bins"],
            vmin=default["vmin"],
            vmax=default["vmax"],
            log_std_min=default["log_std_min"],
            log_std_max=default["log_std_max"],
            episodic=sizes["episodic"],
            episode_length=sizes["episode_length"],
            discount_denom=default["discount_denom"],
            discount_min=default["discount_min"],
            discount_max=default["discount_max"],
            rho=default["rho"],
            scale_consistency=default["consistency_coef"],
            scale_reward=default["reward_coef"],
            scale_value=default["value_coef"],
            scale_termination=default["termination_coef"],
            scale_entropy=default["entropy_coef"],
            tau=default["tau"],
        )
        agent = AgentConfig(
            lr=optimizer["lr"],
            enc_lr_scale=default["enc_lr_scale"],
            clip=default["grad_clip_norm"],
            batch_size=sizes["batch_size"],
            horizon=sizes["horizon"],
        )
        planner = {
            "planner.horizon": sizes["horizon"],
            "planner.candidates": sizes["num_samples"],
            "planner.elites": sizes["num_elites"],
            "planner.proposals": sizes["num_pi_trajs"],
            "planner.iterations": sizes["iterations"],
            "planner.min_std": default["min_std"],
            "planner.max_std": default["max_std"],
            "planner.init_std": default["max_std"],
            "planner.temperature": default["temperature"],
        }
        return TDMPC2Config(model=model, agent=agent.with_(**planner))

    def agent(self, which: str) -> TDMPC2Agent:
        """Our agent with the reference's weights."""
        sizes = self.config[which]
        obs = {"state": TensorSpec(tuple(sizes["obs_shape"]["state"]))}
        action = {"action": TensorSpec((sizes["action_dim"],), low=-1.0, high=1.0)}
        agent = TDMPC2Agent(self.agent_config(which), obs, action)
        load_weights(agent.world_model, self.weights(which))
        return agent

    def batch(self, given: dict[str, Tensor]) -> Batch:
        """Their time-major transitions as our batch-major steps."""
        obs, action = given["obs"].transpose(0, 1), given["action"].transpose(0, 1)
        reward, terminal = (given[k].squeeze(-1).transpose(0, 1) for k in ("reward", "terminated"))
        start = torch.zeros(obs.shape[0], 1)
        terminal = torch.cat([start, terminal], 1).bool()
        first = torch.zeros_like(terminal)
        first[:, 0] = True
        return Batch(
            obs={"state": obs},
            action=torch.cat([action, torch.zeros_like(action[:, :1])], 1),
            reward=torch.cat([start, reward], 1),
            is_first=first,
            is_last=terminal,
            is_terminal=terminal,
        )


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden file, or a skip that says where it was looked for."""
    return opened("tdmpc2", Golden)


@pytest.fixture(autouse=True)
def _forked_rng() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
