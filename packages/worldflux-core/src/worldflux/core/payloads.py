"""What accompanies an observation: actions of every kind, side conditions, whole inputs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from worldflux.describe import Described
from worldflux.errors import ContractError, did_you_mean

ActionKind = Literal["none", "continuous", "discrete", "token", "latent", "text"]

_FIELD_OF_KIND = {
    "continuous": "tensor",
    "discrete": "tensor",
    "token": "tokens",
    "latent": "latent",
    "text": "text",
}
_EXTRA_KEY = re.compile(r"wf\.[a-z0-9_]+\.[A-Za-z0-9_]+")
_API_VERSIONS = ("v0.2", "v3")


def _complain(message: str, api_version: str) -> None:
    """Raise under "v3"; warn under "v0.2", whose callers relied on getting away with it."""
    if api_version not in _API_VERSIONS:
        raise ContractError(
            f"Unknown api_version {api_version!r}. Known: {', '.join(_API_VERSIONS)}."
        )
    if api_version == "v3":
        raise ContractError(message)
    warnings.warn(f"{message} This is an error in v3.", DeprecationWarning, stacklevel=4)


@dataclass(repr=False)
class ActionPayload(Described):
    """An action of any kind; exactly the field that belongs to `kind` is set.

    A discrete action is integer indices or one-hot. A plan has a leading horizon axis and its
    length under `extras["wf.planner.horizon"]`.
    """

    kind: ActionKind = "none"
    tensor: Tensor | None = None
    tokens: Tensor | None = None
    latent: Tensor | None = None
    text: list[str] | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def primary(self) -> Tensor | None:
        """The first of tensor, tokens and latent that is set."""
        for value in (self.tensor, self.tokens, self.latent):
            if value is not None:
                return value
        return None

    def require(self) -> Tensor:
        """The tensor of this action, tokens and latents included; `ContractError` without one."""
        found = self.primary()
        if found is None:
            raise ContractError(
                f"This ActionPayload of kind {self.kind!r} holds no tensor: set tensor, tokens or "
                "latent."
            )
        return found

    def validate(self, *, api_version: str = "v0.2") -> None:
        """At most one primary representation, and the one that `kind` names.

        Two of them, or data under kind "none", are an error in every version. A kind that is
        unknown or whose data is elsewhere or missing is a `DeprecationWarning` in "v0.2".
        """
        if api_version not in _API_VERSIONS:
            _complain("", api_version)
        given = [name for name in ("tensor", "tokens", "latent", "text") if self._has(name)]
        if len(given) > 1:
            own = _FIELD_OF_KIND.get(self.kind, given[0])
            raise ContractError(
                f"ActionPayload sets {' and '.join(given)}, but only one primary representation "
                f"is allowed: keep {own!r} and leave the others None."
            )
        if self.kind == "none" and given:
            raise ContractError(
                f"ActionPayload of kind 'none' carries data in {given[0]!r}: name the kind, "
                f"or leave {given[0]!r} None."
            )
        if self.kind not in get_args(ActionKind):
            known = get_args(ActionKind)
            hint = did_you_mean(str(self.kind), known)
            _complain(
                f"Unknown action kind {self.kind!r}.{hint} Kinds: {', '.join(known)}.", api_version
            )
        elif self.kind != "none" and given != [_FIELD_OF_KIND[self.kind]]:
            expected, actual = _FIELD_OF_KIND[self.kind], given[0] if given else "nothing"
            _complain(
                f"ActionPayload of kind {self.kind!r} needs {expected!r}, got {actual}.",
                api_version,
            )

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


@dataclass(repr=False)
class ConditionPayload(Described):
    """Side conditions: text, a goal representation, spatial maps, camera poses, and extras.

    Keys of `extras` are `wf.<domain>.<name>`. The named fields, extras `wf.row.*` and `wf.data.*`,
    the action mask and extras that are States have a value for each of the B rows: they are
    repeated where a plan or a rollout repeats rows. All other extras are shared by all rows and
    reach the model as they are, whatever their shapes.
    """

    text_condition: Tensor | list[str] | None = None
    goal: Tensor | None = None
    spatial: Tensor | None = None
    camera_pose: Tensor | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def validate(
        self,
        *,
        strict: bool = False,
        allowed_extra_keys: Collection[str] | None = None,
        extra_schema: Mapping[str, type] | None = None,
        api_version: str = "v0.2",
    ) -> None:
        """Check the extras' names, an optional allow-list and an optional key -> type schema.

        Errors under `strict` or api_version "v3", `DeprecationWarning` otherwise.
        """
        version = "v3" if strict and api_version in _API_VERSIONS else api_version
        if version not in _API_VERSIONS:
            _complain("", version)
        allowed = set(allowed_extra_keys) if allowed_extra_keys is not None else None
        for key, value in self.extras.items():
            if not _EXTRA_KEY.fullmatch(key):
                _complain(
                    f"Condition extra {key!r} does not follow the namespaced format "
                    "'wf.<domain>.<name>'.",
                    version,
                )
            elif allowed is not None and key not in allowed:
                hint = did_you_mean(key, allowed)
                names = ", ".join(sorted(allowed)) or "none"
                _complain(
                    f"Condition extra {key!r} is not allowed.{hint} Allowed: {names}.", version
                )
            elif extra_schema and key in extra_schema and not isinstance(value, extra_schema[key]):
                wanted, actual = extra_schema[key].__name__, type(value).__name__
                _complain(f"Condition extra {key!r} is a {actual}, expected {wanted}.", version)


@dataclass(repr=False)
class WorldModelInput(Described):
    """Observations, context, action and conditions in one object."""

    observations: dict[str, Tensor] = field(default_factory=dict)
    context: dict[str, Tensor] = field(default_factory=dict)
    action: ActionPayload | None = None
    conditions: ConditionPayload = field(default_factory=ConditionPayload)


@dataclass(repr=False)
class ActionSequence(Described):
    """Actions of consecutive steps: `payload` holds a leading time axis (T, B, ...)."""

    payload: ActionPayload

    @classmethod
    def of(cls, actions: Tensor, *, kind: ActionKind | None = None) -> ActionSequence:
        """Wrap a tensor (T, B, ...); its dtype tells continuous from discrete unless given."""
        guess: ActionKind = "continuous" if actions.is_floating_point() else "discrete"
        return cls(ActionPayload(kind=kind or guess, tensor=actions))

    def __len__(self) -> int:
        return int(self.payload.require().shape[0])
