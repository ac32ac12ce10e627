"""A llama-server that behaves badly on request: ``fake_llama_server.py HOW NOTES [arguments…]``.

HOW is a comma-separated list of what to do wrong; "well" is nothing. What happens is noted, a line
each, in the file NOTES. The arguments are those of llama-server. It listens as it is told, checks
its key, and replies with the words of the prompt, one at a time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOW = set(sys.argv[1].split(","))
NOTES = Path(sys.argv[2])
ARGUMENTS = sys.argv[3:]

HELP = """
-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads (default: -1)
-tb,   --threads-batch N                number of threads for prompts
-c,    --ctx-size N                     size of the prompt context
-b,    --batch-size N                   logical maximum batch size
-ub,   --ubatch-size N                  physical maximum batch size
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-fit,  --fit [on|off]                   whether to adjust unset arguments
-m,    --model FNAME                    model path to load
-a,    --alias STRING                   set model name aliases
--lora FNAME                            path to LoRA adapter
--lora-init-without-apply               load LoRA adapters without applying them
-mm,   --mmproj FILE                    path to a projector file
-np,   --parallel N                     number of server slots
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer
--repack, -nr, --no-repack              whether to enable weight repacking
-cram, --cache-ram N                    set the maximum cache size in MiB
-ctxcp, --ctx-checkpoints N             max number of context checkpoints
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
--embedding, --embeddings               restrict to only support embedding use case
--rerank, --reranking                   enable reranking endpoint on server
--host HOST                             IP addresses to listen on{sockets}
--port PORT                             port to listen (default: 8080)
--jinja, --no-jinja                     whether to use jinja template engine for chat
--api-key-file FNAME                    path to file containing API keys
--chat-template-file FNAME              set custom jinja chat template file
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI
--metrics                               enable prometheus compatible metrics endpoint
--slots, --no-slots                     expose slots monitoring endpoint
--offline                               Offline mode: prevents network access
"""
SOCKETS = ", or UNIX socket paths\n                                        ending in .sock"

WORD_S = 0.02
"""Between two words of a reply."""


def note(what: str) -> None:
    """Write down what happens."""
    with NOTES.open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def say(line: str) -> None:
    """Log a line."""
    print(line, flush=True)  # noqa: T201 - a program's log


def told(flag: str) -> str:
    """Return the value of an argument; "" without one."""
    return ARGUMENTS[ARGUMENTS.index(flag) + 1] if flag in ARGUMENTS else ""


def sleep_for_ever() -> None:
    """Do nothing, and take no processor time for it."""
    while True:
        time.sleep(3600)


def die() -> None:
    """End, or do nothing any more."""
    if "crashes" in HOW:
        say("/src/ggml/src/ggml.c:1234: GGML_ASSERT(x == y) failed")
        os.kill(os.getpid(), signal.SIGABRT)
    if "runs_out" in HOW:
        say("ggml_aligned_malloc: insufficient memory (attempted to allocate 976.88 MB)")
        say("terminate called after throwing an instance of 'std::bad_alloc'")
        os.kill(os.getpid(), signal.SIGABRT)
    if "exits" in HOW:
        os._exit(3)
    if "hangs" in HOW:
        state.hangs = True
        sleep_for_ever()
    if "dozes" in HOW:
        sleep_for_ever()


class Handler(BaseHTTPRequestHandler):
    """Answers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def address_string(self) -> str:
        """Return a name for who asks: a socket has no address."""
        return "somebody"

    def do_GET(self) -> None:
        """Answer what is asked of it."""
        if "strange" in HOW:
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            self.close_connection = True
        elif "hangs" in HOW and state.hangs:
            sleep_for_ever()
        elif self.path == "/health":
            ready = "never_ready" not in HOW
            error = {"error": {"code": 503, "message": "Loading model"}}
            self._json(200 if ready else 503, {"status": "ok"} if ready else error)
        elif not self._knows_key():
            self._json(401, {"error": {"code": 401, "message": "Invalid API Key"}})
        elif self.path == "/props":
            if "garbage_props" in HOW:
                self._json(200, ["what"])
                return
            slots = int(told("--parallel") or 1)
            caps = {"supports_tools": "no_tools" not in HOW}
            self._json(
                200,
                {
                    "total_slots": slots,
                    "chat_template_caps": caps,
                    "modalities": {"vision": False},
                },
            )
        else:
            self._json(404, {"error": {"code": 404, "message": "File Not Found"}})

    def do_POST(self) -> None:
        """Serve a request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._knows_key():
            self._json(401, {"error": {"code": 401, "message": "Invalid API Key"}})
        elif self.path == "/v1/embeddings":
            rows = [{"index": i, "embedding": [1.0, float(i)]} for i in range(len(body["input"]))]
            self._json(200, {"data": rows, "usage": {"prompt_tokens": len(rows)}})
        elif self.path == "/v1/rerank":
            rows = [
                {"index": i, "relevance_score": float(len(text))}
                for i, text in enumerate(body["documents"])
            ]
            self._json(200, {"results": rows, "usage": {"prompt_tokens": len(rows)}})
        else:
            self._stream(body)

    def _knows_key(self) -> bool:
        key = Path(told("--api-key-file")).read_text(encoding="utf-8").strip()
        return self.headers.get("Authorization") == f"Bearer {key}"

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        words = text.split(" ")
        if len(words) > int(told("--ctx-size")):
            error = {
                "code": 400,
                "message": "request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": len(words),
                "n_ctx": int(told("--ctx-size")),
            }
            self._json(400, {"error": error})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        note("begins")
        try:
            self._write(words[: body.get("max_tokens")], body)
        except (BrokenPipeError, ConnectionResetError):
            note("disconnected")
            self.close_connection = True

    def _write(self, words: list[str], body: dict[str, Any]) -> None:
        is_chat = "messages" in body
        choices = body.get("n", 1)
        progress = {"total": len(words), "processed": len(words), "cache": 0, "time_ms": 0}
        self._event({"choices": [], "prompt_progress": progress})
        for number, word in enumerate(words):
            self._misbehave(number)
            for index in range(choices):
                piece = word if number == 0 else f" {word}"
                told = {"delta": {"content": piece}} if is_chat else {"text": piece}
                self._event({"choices": [{"index": index, "finish_reason": None, **told}]})
            time.sleep(WORD_S)
        usage = {"prompt_tokens": len(words), "completion_tokens": len(words)}
        for index in range(choices):
            ended = {"index": index, "finish_reason": "stop", "delta": {}}
            self._event({"choices": [ended], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        note("served")

    def _misbehave(self, number: int) -> None:
        """Do what is wrong in the middle of a reply: after its second word."""
        if number == 2:
            die()
            self._babble()

    def _babble(self) -> None:
        """Write what is no reply."""
        if "garbage" in HOW:
            self._chunk(b"data: {what is this\n\n")
        if "no_event" in HOW:
            self._chunk(b"<html>502</html>\n")
        if "error" in HOW:
            error = {"code": 500, "message": "Context size has been exceeded."}
            self._event({"error": error})
        if "cut" in HOW:
            self._chunk(b'data: {"choices": [{"ind')
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            raise BrokenPipeError
        if "ends" in HOW:
            self.wfile.write(b"0\r\n\r\n")
            raise BrokenPipeError
        while "endless_line" in HOW:
            self._chunk(b"x" * 2**20)

    def _event(self, message: Any) -> None:
        self._chunk(b"data: " + json.dumps(message).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class State:
    """What all threads share."""

    hangs = False


state = State()


class Server(ThreadingHTTPServer):
    """On a port, or on a socket in a folder."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Say nothing of connections that break: they are meant to."""


class SocketServer(Server):
    """On a socket in a folder."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind; a socket has neither host name nor port."""
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self) -> tuple[Any, Any]:
        """Accept; whoever connects has no address."""
        connection, _ = self.socket.accept()
        return connection, ("", 0)


def start() -> Server:
    """Begin as llama-server does, or go wrong."""
    say("0.00.000.001 I srv  llama_server: initializing ...")
    if "stalls" in HOW:
        sleep_for_ever()
    if "clashes" in HOW or ("clashes_once" in HOW and "clashed" not in noted()):
        note("clashed")
        say("srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1")
        sys.exit(1)
    if "dies" in HOW:
        os.kill(os.getpid(), signal.SIGILL)
    if "spoiled" in HOW and "--no-repack" not in ARGUMENTS:
        note("died packed")
        os.kill(os.getpid(), signal.SIGSEGV)
    say(f"srv    load_model: loading model '{told('--model')}'")
    if "unknown" in HOW:
        say("llama_model_load: error loading model: unknown model architecture: 'zebra'")
        sys.exit(1)
    if "corrupt" in HOW:
        say("llama_model_load: error loading model: tensor data is corrupted or incomplete")
        sys.exit(1)
    if "out_of_memory" in HOW:
        say("alloc_tensor_range: failed to allocate CPU buffer of size 1024327680")
        sys.exit(1)
    host, port = told("--host"), told("--port")
    at: Any = (host, int(port)) if port else host  # a socket's address is its path
    server = (Server if port else SocketServer)(at, Handler)
    say("load_tensors:   CPU_Mapped model buffer size =     1.25 MiB")
    say("srv  llama_server: model loaded")
    return server


def noted() -> str:
    """Return what was noted."""
    return NOTES.read_text(encoding="utf-8") if NOTES.exists() else ""


def main() -> None:
    """Print what is asked for, or serve until SIGTERM."""
    if "--help" in ARGUMENTS:
        say(HELP.replace("{sockets}", "" if "no_sockets" in HOW else SOCKETS))
        return
    note(f"started {os.getpid()}")
    if "deaf" in HOW:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = start()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
