"""oi-run: serve over HTTP, continue one prompt, or hold a conversation.

The engine process starts as soon as the arguments are read: what is imported here at once, it has to wait for.
"""

from __future__ import annotations

import time

_STARTED_AT = time.perf_counter()

import argparse  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, NoReturn  # noqa: E402

from oi.runtime.engine_child import EngineChild, spawn  # noqa: E402
from oi.runtime.errors import EngineDead, OiError  # noqa: E402

if TYPE_CHECKING:
    from oi.runtime.messages import Ready

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    try:
        return _run(arguments)
    except EngineDead as e:
        return _fail(str(e), 1)
    except OiError as e:
        return _fail(str(e), 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(arguments: argparse.Namespace) -> int:
    child = spawn(gpu=arguments.target != "cpu")
    try:
        return _serve(arguments, child) if arguments.http else _talk(arguments, child)
    finally:
        child.process.end()


def _configure(arguments: argparse.Namespace, child: EngineChild) -> Path:
    """Tell the engine what to serve; the checkpoint's folder. Raises OiError."""
    from oi.runtime.checkpoint import resolve
    from oi.runtime.compile_once import ensure_artifact
    from oi.runtime.engine_settings import EngineSettings

    checkpoint = resolve(arguments.model)
    artifact = ensure_artifact(checkpoint, arguments.artifact, may_compile=arguments.compile, target=arguments.target)
    child.configure(
        EngineSettings(
            artifact=str(artifact),
            checkpoint=str(checkpoint),
            max_model_len=arguments.max_model_len,
            max_num_seqs=arguments.max_num_seqs if arguments.http else 1,
            kv_bytes=None if arguments.kv_cache_mib is None else arguments.kv_cache_mib << 20,
            host_kv_bytes=_host_kv_bytes(arguments),
        )
    )
    return checkpoint


def _host_kv_bytes(arguments: argparse.Namespace) -> int | None:
    from oi.runtime.memory import GIB, available

    if not arguments.kv_offload:
        return None
    given: int | None = arguments.kv_offload_host_gib
    return min(16 * GIB, available() // 4) if given is None else given


def _talk(arguments: argparse.Namespace, child: EngineChild) -> int:
    checkpoint = _configure(arguments, child)
    from oi.runtime.terminal import run

    return run(child, checkpoint, arguments.prompt, arguments.max_tokens, arguments.temperature)


def _serve(arguments: argparse.Namespace, child: EngineChild) -> int:
    from oi.runtime.listen import bind, url_of

    bound = bind(arguments.host, arguments.port)
    checkpoint = _configure(arguments, child)
    from oi.runtime.memory import keep_little

    keep_little()
    gc.disable()  # until ready: nothing that is made here is garbage before
    from oi.runtime.text_model import begin_loading

    loading = begin_loading(checkpoint)  # while this thread loads what HTTP needs
    import asyncio
    import logging

    from oi.runtime.http.server import ServerOptions, serve

    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that break HTTP are not our errors
    name = arguments.served_model_name or _default_name(arguments.model)
    options = ServerOptions(name, arguments.model or name, arguments.api_key, arguments.max_queue)

    def on_ready(ready: Ready) -> None:
        seconds = time.perf_counter() - _STARTED_AT
        print(
            f"oi: {name} at {url_of(bound)}/v1, context {ready.max_model_len} tokens, "
            f"{ready.max_num_seqs} sequences at once, ready after {seconds:.2f} s",
            flush=True,
        )

    return asyncio.run(serve(options, child, loading, bound, on_ready))


def _default_name(model: str | None) -> str:
    """A hub id is its own name, a folder is called by its last part."""
    if model is None:
        return "oi-tiny"
    return Path(model).resolve().name if Path(model).expanduser().is_dir() else model


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="oi-run",
        description="Serve a Qwen3 model over HTTP (--http), continue a prompt, or hold a conversation (--chat).",
    )
    parser.add_argument("prompt", nargs="?", help="text to continue")
    parser.add_argument("--http", action="store_true", help="serve OpenAI's API")
    parser.add_argument("--chat", action="store_true", help="a conversation in the terminal")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="DIR_OR_HUB_ID", help="checkpoint (default: the bundled one)")
    model.add_argument("--artifact", type=Path, metavar="DIR", help="compiled model (default: in the user's cache)")
    model.add_argument(
        "--target",
        metavar="NAME",
        default="auto",
        help="machine to serve on: cpu, or a GPU like cuda:sm_90 (default: the GPU that is here, else the CPU)",
    )
    model.add_argument("--no-compile", dest="compile", action="store_false", help="never compile a missing artifact")
    model.add_argument("--max-model-len", type=_positive, metavar="N", help="longest prompt and answer, in tokens")
    model.add_argument(
        "--kv-cache-mib",
        type=_positive,
        metavar="N",
        help="memory for the KV cache (default: a quarter of what is free)",
    )
    model.add_argument(
        "--kv-offload", action="store_true", help="keep in the machine's memory what the KV cache has no room for"
    )
    model.add_argument(
        "--kv-offload-host-gib",
        type=_gib,
        metavar="N",
        help="so much of it, with --kv-offload (default: a quarter of what is free, at most 16)",
    )
    server = parser.add_argument_group("with --http")
    server.add_argument("--host", default="127.0.0.1")
    server.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: 8000)")
    server.add_argument("--served-model-name", metavar="NAME", help="what clients call the model")
    server.add_argument("--max-num-seqs", type=_positive, metavar="N", help="sequences that run at once")
    server.add_argument(
        "--max-queue", type=_positive, metavar="N", default=1024, help="sequences that may wait (default: 1024)"
    )
    server.add_argument("--api-key", metavar="KEY", help="what clients must send as `Authorization: Bearer KEY`")
    server.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    text = parser.add_argument_group("in the terminal")
    text.add_argument("--max-tokens", type=_positive, metavar="N", help="longest answer (default: what fits)")
    text.add_argument("--temperature", type=_temperature, metavar="T", help="0 is greedy (default: the model's own)")
    arguments = parser.parse_args(argv)
    if [arguments.prompt is not None, arguments.http, arguments.chat].count(True) != 1:
        parser.error("give one of: a prompt, --chat, --http")
    if arguments.kv_offload_host_gib is not None and not arguments.kv_offload:
        parser.error("--kv-offload-host-gib is the size of a host tier; add --kv-offload to have one")
    return arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message} (oi-run --help says more)", 2))


def _fail(message: str, code: int) -> int:
    print("oi-run: " + " ".join(message.split()), file=sys.stderr)
    return code


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def _gib(text: str) -> int:
    """In bytes."""
    from oi.runtime.memory import GIB, available

    try:
        size = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GiB; give one like 16 or 0.5") from None
    if not size > 0:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0; leave --kv-offload out to have no host tier")
    if size * GIB > (there := available()):
        raise argparse.ArgumentTypeError(f"{text} GiB are not to be had, {there / GIB:.1f} are; give less")
    return int(size * GIB)


def _port(text: str) -> int:
    if not 0 <= (value := int(text)) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port; give 0 to 65535")
    return value


def _temperature(text: str) -> float:
    if not 0.0 <= (value := float(text)) <= 2.0:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to 2")
    return value


if __name__ == "__main__":
    sys.exit(main())
