"""Wrappers, each with its space; what Gymnasium has already is Gymnasium's."""

from gymnasium.wrappers import TimeLimit

from worldflux_envs.wrappers.actions import (
    ActionRepeat,
    NormalizeActions,
    OneHotAction,
    SelectAction,
)
from worldflux_envs.wrappers.contract import Contract, ObsDict
from worldflux_envs.wrappers.layer import Layer
from worldflux_envs.wrappers.pixels import FrameStack, GrayScale, RenderImage, ResizeImage
from worldflux_envs.wrappers.recorder import EpisodeRecorder
from worldflux_envs.wrappers.rewards import RewardObs
from worldflux_envs.wrappers.video import VideoRecorder, VideoWriter

__all__ = [
    "ActionRepeat",
    "Contract",
    "EpisodeRecorder",
    "FrameStack",
    "GrayScale",
    "Layer",
    "NormalizeActions",
    "ObsDict",
    "OneHotAction",
    "RenderImage",
    "ResizeImage",
    "RewardObs",
    "SelectAction",
    "TimeLimit",
    "VideoRecorder",
    "VideoWriter",
]
