"""Every tensor of the published LeWorldModel's golden file, through our production path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.interfaces import ObservationEncoder
from worldflux.core.rand import Rand
from worldflux.core.state import State
from worldflux.factory import create_world_model
from worldflux.specs import TensorSpec
from worldflux_jepa.lewm import reference
from worldflux_jepa.lewm.world_model import LeWorldModel
from worldflux_jepa.projected import Projected
from worldflux_jepa.sigreg import knots, sigreg

Golden = Any


@pytest.fixture(scope="module")
def golden(golden_of: Callable[[str], Golden]) -> Golden:
    return golden_of("lewm")


class Given(nn.Module):
    """The file's stand-in for the encoder: features come as they are."""

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return obs["features"]


class GivenFeatures(Projected):
    """What the file's encoder is: given features, projected."""

    def __init__(self, model: Any) -> None:
        own = model.own
        super().__init__(Given(), model.obs_spec["features"].size, own.projector, own.embed)


assert issubclass(GivenFeatures, ObservationEncoder)


@pytest.fixture
def model(golden: Golden) -> LeWorldModel:
    c = golden.config
    p, a = c["predictor"], c["action_encoder"]
    made = create_world_model(
        "lewm:base",
        obs_spec={"features": TensorSpec((c["projector"]["input_dim"],))},
        action_spec={"action": TensorSpec((a["input_dim"],), low=-1.0, high=1.0)},
        slots={"observation_encoder": GivenFeatures},
        **{
            "model.embed": c["embed_dim"],
            "model.projector": c["projector"]["hidden_dim"],
            "model.predictor.depth": p["depth"],
            "model.predictor.heads": p["heads"],
            "model.predictor.head_size": p["dim_head"],
            "model.predictor.mlp": p["mlp_dim"],
            "model.predictor.width": p["hidden_dim"],
            "model.predictor.dropout": p["dropout"],
            "model.predictor.input_dropout": p["emb_dropout"],
            "model.action_mlp": a["mlp_scale"],
            "model.action_width": a["smoothed_dim"],
            "model.history": p["num_frames"],
            "model.stride": 1,
            "model.sigreg": c["loss"]["sigreg_weight"],
            "model.directions": c["loss"]["num_proj"],
            "model.knots": c["loss"]["knots"],
        },
    )
    assert isinstance(made, LeWorldModel)
    reference.load_weights(made, golden.float_weights())
    return made.eval()


CASES = {
    "normal": lambda z: z,
    "collapsed": torch.zeros_like,
    "scaled3": lambda z: 3 * z,
    "scaled_half": lambda z: z / 2,
    "shifted": lambda z: z + 1,
    "rank1": lambda z: z[..., :1].expand_as(z),
}


def test_sigreg(golden: Golden) -> None:
    for name in {key.split("/")[0] for key in golden.group("in") if key.startswith("sigreg")}:
        z, directions = golden[f"in/{name}/z"], golden[f"in/{name}/A"]
        count = len(golden[f"out/{name}/t"])
        for key, value in zip(("t", "phi", "weights"), knots(count, z), strict=True):
            golden.check(f"{name}/{key}", value)
        for case in golden.group(f"out/{name}"):
            if case in ("t", "phi", "weights") or case.endswith("_grad"):
                continue
            given = CASES[case](z).detach().requires_grad_()
            found = sigreg(given, directions, count)
            golden.check(f"{name}/{case}", found)
            if f"out/{name}/{case}_grad" in golden.tensors:
                [gradient] = torch.autograd.grad(found, given)
                golden.check(f"{name}/{case}_grad", gradient)


def test_parts(golden: Golden, model: LeWorldModel) -> None:
    action, emb = golden["in/action"], golden["in/emb"]
    condition = model.condition(action.flatten(0, 1)).unflatten(0, action.shape[:2])
    golden.check("action_encoder/out", condition)
    predictor, count = model.dynamics_model.predictor, emb.shape[1]
    golden.check("predictor/out", predictor(emb, condition[:, :count]))
    golden.check("predictor/out_short", predictor(emb[:, :2], condition[:, :2]))
    ours = model.observation_encoder.projector, model.dynamics_model.projector
    projectors = dict(zip(("projector", "pred_proj"), ours, strict=True))
    for name, module in projectors.items():
        golden.check(f"{name}/eval", module(golden["in/mlp/x"]))
    first = torch.zeros(emb.shape[:2], dtype=torch.bool)
    golden.check("predict/eval", model.dynamics_model.sequence(emb, condition[:, :count], first))


def test_batch_norm_in_training(golden: Golden, model: LeWorldModel) -> None:
    projector = model.observation_encoder.projector.train()
    golden.check("projector/train", projector(golden["in/mlp/x"]))
    golden.check("projector/running_mean_after", projector.net[1].running_mean)
    golden.check("projector/running_var_after", projector.net[1].running_var)


def test_rollout(golden: Golden, model: LeWorldModel) -> None:
    """The context is encoded once; all candidates start from its State."""
    features = golden["in/rollout/features"][:, 0]  # (B, H, D)
    done = golden["in/rollout/action_history"][:, 0]
    actions = golden["in/rollout/action_sequence"]
    state = model.encode({"features": features[:, 0]})
    seen = [state["rep"]]
    for t in range(1, features.shape[1]):
        state = model.update(state, done[:, t - 1], {"features": features[:, t]})
        seen.append(state["rep"])
    lead = actions.shape[:3]
    path = model.dynamics_model.paths(
        state, model.condition(actions.flatten(0, 2)).unflatten(0, lead)
    )
    context = torch.stack(seen, 1)[:, None].expand(-1, lead[1], -1, -1)
    golden.check("rollout/predicted_emb", torch.cat([context, path], 2))
    many, steps = state.repeat(lead[1]), []
    for action in actions.flatten(0, 1).unbind(1):
        many = model.transition(many, action)
        steps.append(many["rep"])
    torch.testing.assert_close(torch.stack(steps, 1).unflatten(0, lead[:2]), path)


def test_loss_and_gradients(golden: Golden, model: LeWorldModel) -> None:
    features, action = golden["in/loss/features"], golden["in/loss/action"].clone()
    action[0, -1] = 0  # NaN in the published data, where it is made 0
    rows, steps = features.shape[:2]
    first = torch.zeros(rows, steps, dtype=torch.bool)
    last = torch.zeros_like(first)
    batch = Batch({"features": features}, first, last, last, action=action)
    model.train()
    emb = model.embedded(batch)
    golden.check("loss/emb", emb)
    conditioned = model.condition(action.flatten(0, 1)).unflatten(0, action.shape[:2])
    golden.check("loss/act_emb", conditioned)
    reference.load_weights(model, golden.float_weights())  # the running statistics moved
    rand = Rand(draws={"directions": golden["in/loss/A"]})
    found = model.loss(batch, rand=rand)
    rand.check_used()
    golden.check("loss/pred_loss", found.components["prediction"])
    golden.check("loss/sigreg_loss", found.components["sigreg"])
    golden.check("loss/loss", found.loss)
    found.loss.backward()
    golden.check("loss/grad_norms", _norms(golden, model))


def _norms(golden: Golden, model: LeWorldModel) -> Tensor:
    """Our gradients' norms in their order; the stand-in encoder's dummy has none."""
    parts = {"predictor.": model.dynamics_model, "pred_proj.": model.dynamics_model,
             "action_encoder.": model.action_conditioner,
             "projector.": model.observation_encoder.projector}  # fmt: skip
    expected, norms = golden["out/loss/grad_norms"], []
    for i, name in enumerate(golden.config["grad_keys"]["loss"]):
        start = next((part for part in parts if name.startswith(part)), None)
        if start is None:
            norms.append(expected[i])
            continue
        own = dict(parts[start].named_parameters())
        bare = name.removeprefix(start) if start == "projector." else reference.our_name(name)
        gradient = own[bare].grad
        norms.append(torch.zeros(()) if gradient is None else gradient.norm())
    return torch.stack(norms)


def test_nothing_is_left_out(golden: Golden) -> None:
    assert golden.all_outputs() == golden.checked, golden.all_outputs() - golden.checked


def test_states_are_what_plans_start_from(model: LeWorldModel) -> None:
    assert isinstance(model.initial(2), State)
