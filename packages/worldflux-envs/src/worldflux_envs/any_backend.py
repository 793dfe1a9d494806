"""What any backend makes, behind the contract: ours and those of other distributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from worldflux.errors import EnvError
from worldflux.specs import EnvSpec
from worldflux_envs.options import CONTRACT
from worldflux_envs.stack import check_obs, contract_env
from worldflux_envs.vector import make_vec
from worldflux_envs.vector.base import EpisodicVectorEnv
from worldflux_envs.wrappers import Contract

Make = Callable[..., gymnasium.Env[Any, Any]]
MakeVec = Callable[..., VectorEnv[Any, Any, Any]]


def single(spec: EnvSpec, env_id: str, make: Make) -> Make:
    """`make` of a backend, as a function whose environments keep the contract.

    Options of the contract that the backend does not name among its own are applied here, unless it
    has a `make_vec`, which then takes them all itself.
    """
    applied = set() if spec.make_vec else set(CONTRACT) - set(spec.options)
    return partial(_single, make, env_id, frozenset(applied))


def vectorised(spec: EnvSpec, env_id: str, make: Make, own: MakeVec | None) -> MakeVec:
    """The backend's own `make_vec`, checked, or ours."""
    if own is not None:
        return partial(_checked, own, env_id)
    backend = env_id.partition("/")[0]
    return partial(make_vec, single(spec, env_id, make), name=backend)


def _single(
    make: Make, env_id: str, applied: frozenset[str], task: Any, **options: Any
) -> gymnasium.Env[Any, Any]:
    contract = {key: options.pop(key) for key in tuple(options) if key in applied}
    if check_obs(contract.get("obs", "state")) != "state":
        options.setdefault("render_mode", "rgb_array")
    try:
        env = make(task, **options)
    except TypeError as error:
        raise EnvError(f"{env_id} cannot be made with {options}: {error}") from error
    if not isinstance(env, gymnasium.Env):
        raise EnvError(f"{env_id}: its backend gave a {type(env).__name__}, not a gymnasium.Env.")
    return contract_env(env, **contract) if contract or not _kept(env) else env


def _kept(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether the contract is kept already."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Contract):
            return True
        env = env.env
    return False


def _checked(
    own: MakeVec, env_id: str, task: Any, num_envs: int, **options: Any
) -> VectorEnv[Any, Any, Any]:
    vec = own(task, num_envs, **options)
    if not isinstance(vec, EpisodicVectorEnv):
        _check_spaces(env_id, vec)
    return vec


def _check_spaces(env_id: str, vec: Any) -> None:
    """Refuse a vector of another's making that is not in the contract's form."""
    obs, action = vec.single_observation_space, vec.single_action_space
    wide = isinstance(action, spaces.Box) and bool(
        (action.low != -1).any() or (action.high != 1).any()
    )
    if wide or not isinstance(obs, spaces.Dict):
        vec.close()
        raise EnvError(
            f"{env_id}: the vectors of this backend do not keep the contract (observations {obs}, "
            f"actions {action}). Leave make_vec out of its EnvSpec: its environments are then "
            "vectorised by WorldFlux, with all options."
        )
