"""What the shell offers behind the Tab key: ids of models and environments, without torch.

`worldflux --install-completion` puts typer's script into the shell, which asks this program with
the environment variable `_WORLDFLUX_COMPLETE`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator

from worldflux import factory
from worldflux.errors import WorldFluxError

ASKED = "_WORLDFLUX_COMPLETE"


def model_ids(incomplete: str) -> list[str]:
    """Families; presets behind a colon, or where one family alone is left."""
    family, colon, _ = incomplete.rpartition(":")
    names = [name for name in factory.list_models() if name.startswith(incomplete)]
    wanted = [*names] if len(names) == 1 else [family] if colon else []
    with contextlib.suppress(WorldFluxError):  # what cannot be read is not offered
        for name in wanted:
            names += [f"{name}:{preset}" for preset in factory.get_model_spec(name).presets]
    return names


def env_ids(incomplete: str) -> list[str]:
    """Backends; tasks behind a slash, or where one backend alone is left."""
    backend, slash, _ = incomplete.partition("/")
    names = [b.name for b in factory.list_env_backends() if b.problem is None]
    left = [name for name in names if name.startswith(backend)]
    if slash or len(left) == 1:
        with contextlib.suppress(WorldFluxError):
            return factory.list_envs(backend if slash else left[0])
    return [f"{name}/" for name in left]


def main(run: Callable[[], object]) -> None:
    """`run()`; where bash asks for completions, with the words as they were typed.

    Bash ends words at ":" and "=" and replaces only what stands behind the last one, so that
    `dreamerv3:si` is the three words `dreamerv3`, `:` and `si`, of which `size1m` completes one.
    """
    if os.environ.get(ASKED) != "complete_bash":
        run()
        return
    words, number = joined(os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"]))
    typed = words[number] if number < len(words) else ""
    replaced = typed[max(typed.rfind(":"), typed.rfind("=")) + 1 :]
    kept = typed.removesuffix(replaced)
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(number)}
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            run()
    finally:
        sys.stdout.write("".join(_without(kept, said.getvalue())))


def joined(words: list[str], number: int) -> tuple[list[str], int]:
    """Bash's words put together at ":" and "=", and where the word of that number now stands."""
    whole: list[str] = []
    at = number
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if index and (_breaks(word) or _breaks(before)) and whole:
            whole[-1] += word
            at -= index <= number
        else:
            whole.append(word)
    return whole, at


def _breaks(word: str) -> bool:
    return bool(word) and not word.strip(":=")


def _without(kept: str, said: str) -> Iterator[str]:
    for line in said.splitlines():
        if rest := line.removeprefix(kept):
            yield f"{rest}\n"
