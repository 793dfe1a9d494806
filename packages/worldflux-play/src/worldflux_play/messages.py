"""What a page may say. Anything else is refused with a sentence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worldflux.errors import ConfigError

MOST_TEXT = 16_384
"""Bytes of one message."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Choice = Annotated[int, Field(ge=0, lt=10_000)]


class Message(BaseModel):
    """One of them; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Hello(Message):
    """The first one: go on with a session, watch somebody's, or (with neither) begin one."""

    type: Literal["hello"]
    session: Annotated[str, Field(max_length=64)] | None = None
    watch: Annotated[str, Field(max_length=64)] | None = None


class Act(Message):
    """What the person does from now on; `input` comes back with the first picture of it."""

    type: Literal["act"]
    action: Choice | list[Choice] | list[Number] | None
    input: Annotated[int, Field(ge=0, lt=2**52)] = 0
    step: bool = False


class Go(Message):
    """Play, pause, one step, or put the dream back onto reality."""

    type: Literal["play", "pause", "step", "resync"]


class Reset(Message):
    """A new episode, from a seed where one is given."""

    type: Literal["reset"]
    seed: Seed | None = None


class Control(Message):
    """Who acts."""

    type: Literal["control"]
    who: Annotated[str, Field(max_length=40)]


class Settings(Message):
    """Steps per second, and switches; what is left out stays."""

    type: Literal["settings"]
    fps: Annotated[float, Field(ge=0.1, le=240, allow_inf_nan=False)] | None = None
    uncertain: bool | None = None
    goes_on: bool | None = None


class Record(Message):
    """Begin to record, or stop."""

    type: Literal["record"]
    kind: Literal["mp4", "gif", "episode"] | None


class Start(Message):
    """Where to begin. An image follows as bytes, without a message."""

    type: Literal["start"]
    kind: Literal["env", "data", "imagined"]
    episode: Annotated[int, Field(ge=0, lt=2**31)] = 0


Any = Annotated[
    Hello | Act | Go | Reset | Control | Settings | Record | Start, Field(discriminator="type")
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Any)


def parsed(text: str) -> Any:
    """A message; `ConfigError` for what is none."""
    if len(text) > MOST_TEXT:
        raise ConfigError(f"A message of {len(text):,} characters: at most {MOST_TEXT:,} are read.")
    try:
        return _ADAPTER.validate_json(text)
    except (ValidationError, RecursionError) as error:
        raise ConfigError(f"This is no message: {_first(error)}.") from None


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    [first, *_] = error.errors(include_url=False, include_input=False, include_context=False)
    where = ".".join(str(part) for part in first["loc"][-2:])
    return f"{where[:80]}: {first['msg'][:200]}".removeprefix(": ")
