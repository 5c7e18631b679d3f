"""Language models that complete prompts: one small interface, and the backends that have it."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from ajbench.core.errors import UsageError
from ajbench.core.registry import suggest


class Answer(NamedTuple):
    """What a model answered to one prompt.

    Attributes:
        text: the completion without surrounding white space; None where there is none.
        reason: why there is none, such as `HTTP 429`, or why the text is not whole; None where it is.
    """

    text: str | None
    reason: str | None


class Backend(Protocol):
    """A language model at temperature 0.

    Attributes:
        name: of `BACKENDS`.
        model: name of the model, or of its file.
        model_hash: 16 hexadecimal digits; two models have different ones.
    """

    name: str
    model: str
    model_hash: str

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        seed: int = 0,
    ) -> list[Answer]:
        """Complete each prompt.

        Args:
            prompts: N texts.
            max_tokens: the longest completion.
            stop: texts at which a completion ends; they are not part of it.
            grammar: a GBNF grammar (llama.cpp's) that the completion has to follow.
            seed: of the model's random numbers, where it draws any.

        Returns:
            N answers in the order of the prompts. A prompt without a usable completion has an answer
            without a text, with its reason; nothing is raised for it.

        Raises:
            MissingError: the model cannot be reached at all.
        """
        ...


BACKENDS: Mapping[str, str] = {
    "llamacpp": "ajbench.captions.llamacpp:LlamaCpp",
    "openai": "ajbench.captions.openai_server:OpenAIServer",
}


def load(name: str, **options: Any) -> Backend:
    """Load a backend.

    Args:
        name: `llamacpp`, a GGUF file on this machine (by default Gemma 3 270M from the extra `llm`), or
            `openai`, any server that speaks OpenAI's protocol.
        **options: of the backend; those that are None keep its default. Both: `model` (a GGUF file, or the
            server's name of the model). `llamacpp`: `threads`, `context`. `openai`: `url`, `key`,
            `concurrency`, `retries`, `timeout_s`.

    Raises:
        UsageError: an unknown name, or an option that the backend does not have.
        MissingError: a package, the file or the server's address is missing.
    """
    if name not in BACKENDS:
        raise UsageError(
            f"backend {name!r} is unknown{suggest(name, BACKENDS)}; allowed: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return cast(Backend, getattr(importlib.import_module(module), attribute)(**given))
    except TypeError as error:
        raise UsageError(f"backend {name}: {error}") from None
