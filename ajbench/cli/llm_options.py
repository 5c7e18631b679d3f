"""Options of language models, which `caption` and `entail` share."""

from typing import Annotated, Any, Literal

import typer

PANEL = "Language model"


def _llm(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PANEL, **more)


Model = Annotated[str | None, _llm("GGUF file, or the server's name of the model.", "--model")]
Url = Annotated[str | None, _llm("openai: address of the server.", "--url")]
Api = Annotated[
    Literal["chat", "completions"] | None, _llm("openai: kind of requests (default: chat).", "--api")
]
Concurrency = Annotated[int | None, _llm("openai: requests at a time.", "--concurrency", min=1)]
Retries = Annotated[int | None, _llm("openai: attempts after the first.", "--retries", min=0)]
TimeoutS = Annotated[float | None, _llm("openai: seconds per request.", "--timeout-s", min=0)]
Threads = Annotated[int | None, _llm("llamacpp: threads.", "--threads", min=1)]
