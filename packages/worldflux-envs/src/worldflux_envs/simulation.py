"""The state of a MuJoCo simulation, and its picture, for every backend that has one."""

from __future__ import annotations

from typing import Any

import numpy as np

# Read by rewards and observations before the next step computes them anew, and computed by the
# last one at its beginning: they lag behind qpos, so they cannot be computed from it.
_LAGGING = tuple(
    """
    xpos xquat xmat xipos ximat xanchor xaxis geom_xpos geom_xmat site_xpos site_xmat
    cam_xpos cam_xmat subtree_com subtree_linvel subtree_angmom cinert cvel cdof
    actuator_force actuator_length actuator_velocity qfrc_actuator qfrc_constraint
    qfrc_passive qfrc_bias cfrc_ext cfrc_int cacc sensordata qacc qacc_smooth
    """.split()  # noqa: SIM905
)


def get_simulation(model: Any, data: Any) -> dict[str, np.ndarray]:
    """Everything of `data` that the next step, observation or reward may read."""
    import mujoco

    signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.empty(mujoco.mj_stateSize(model, signature))
    mujoco.mj_getState(model, data, state, signature)
    return {"integration": state, **{name: getattr(data, name).copy() for name in _LAGGING}}


def set_simulation(model: Any, data: Any, state: dict[str, np.ndarray]) -> None:
    """Put `data` into a state of `get_simulation`."""
    import mujoco

    signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_setState(model, data, state["integration"], signature)
    mujoco.mj_forward(model, data)  # contacts and all that is not saved
    mujoco.mj_setState(model, data, state["integration"], signature)
    for name in _LAGGING:
        getattr(data, name)[:] = state[name]


def plain_rendering(model: Any) -> None:
    """No shadows, reflections, multisampling, and coarse round bodies: cheap without a GPU.

    Only pictures change, and only before the first one: drawing contexts are made once.
    """
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0
    quality = model.vis.quality
    quality.offsamples = quality.shadowsize = 0
    quality.numslices, quality.numstacks = 8, 6  # MuJoCo's 28 by 16 do not show at 64 pixels
