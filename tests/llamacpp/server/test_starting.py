"""What is started, and how it is told what to do: found, asked for its flags, told all numbers."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import attrs
import pytest
from llamacpp.server.served import Fake
from tiny_gguf import tiny_model

from llmdispatcher import LlamaCpp
from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.limits.caps import Caps
from llmdispatcher.vendors.llamacpp.plan.estimate import MIB
from llmdispatcher.vendors.llamacpp.server import address, build, facts, find, holding, planned
from llmdispatcher.vendors.llamacpp.server.build import Build, Device
from llmdispatcher.vendors.llamacpp.server.environment import environment
from llmdispatcher.vendors.llamacpp.server.flags import Place, arguments
from llmdispatcher.vendors.llamacpp.server.program import LlamaServer, Prebuilt, program_for
from llmdispatcher.vendors.llamacpp.server.settings import MAX_CACHE_MIB, Settings, made

ALL = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of threads (default: -1)
-tb,   --threads-batch N                number of threads (default: same as --not-a-flag)
-c,    --ctx-size N                     size of the prompt context
-b,    --batch-size N                   logical maximum batch size
-ub,   --ubatch-size N                  physical maximum batch size
--swa-full                              use full-size SWA cache
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
-lm,   --load-mode MODE                 model loading mode (default: auto)
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-fit,  --fit [on|off]                   whether to adjust unset arguments
-m,    --model FNAME                    model path to load
--lora FNAME                            path to LoRA adapter
--lora-init-without-apply               load LoRA adapters without applying them
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Values:
                                         - 3: info
                                         - 4: trace (more info)
--kv-unified-per-slot N                 context limit per parallel slot
-ctxcp, --ctx-checkpoints, --swa-checkpoints N
                                        max number of context checkpoints
-cram, --cache-ram N                    set the maximum cache size in MiB
-kvu,  --kv-unified, -no-kvu, --no-kv-unified
                                        use single unified KV buffer
--context-shift, --no-context-shift     whether to use context shift
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
-np,   --parallel N                     number of server slots
-mm,   --mmproj FILE                    path to a multimodal projector file
-a,    --alias STRING                   set model name aliases
--host HOST                             IP addresses to listen on, or UNIX socket paths
                                        ending in .sock
--port PORT                             port to listen (default: 8080)
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI
--embedding, --embeddings               restrict to only support embedding use case
--rerank, --reranking                   enable reranking endpoint on server
--api-key-file FNAME                    path to file containing API keys
--threads-http N                        number of threads used to process HTTP requests
--metrics                               enable prometheus compatible metrics endpoint
--slots, --no-slots                     expose slots monitoring endpoint
--jinja, --no-jinja                     whether to use jinja template engine for chat
--chat-template-file JINJA_TEMPLATE_FILE
                                        set custom jinja chat template file
--offline                               Offline mode
"""
OLD = (
    ALL.replace("-fa,   --flash-attn [on|off|auto]       set", "-fa,   --flash-attn   enable")
    .replace(", or UNIX socket paths\n                                        ending in .sock", "")
    .replace("- 4: trace", "- 9: all")
)
for _gone in ("--cache-ram", "--fit", "--kv-unified-per-slot", "--load-mode", "--offline"):
    OLD = "\n".join(line for line in OLD.splitlines() if f" {_gone} " not in f" {line} ")

SETTINGS = Settings(
    model=Path("/models/-odd name.gguf"),
    alias="odd",
    context_tokens=512,
    cells=1024,
    slots=4,
    parallel=2,
    batch_tokens=64,
    threads=3,
    gpu_layers=7,
    cache_type="f16",
    mapped=True,
    cache_mib=33,
    checkpoints=2,
)
PLACE = Place(host="/run/x/s.sock", port=None, key_file=Path("/run/x/key"))


def told(settings: Settings, text: str = ALL, place: Place = PLACE) -> dict[str, str]:
    """Return flags and their values."""
    words = arguments(settings, Build.of(text), place)
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {w: "" if v.startswith("--") else v for w, v in pairs if w.startswith("--")}


# -- finding -----------------------------------------------------------------------------------


def test_a_program_is_found_where_it_is_named(tmp_path: Path) -> None:
    """A path is taken as it is, and a folder is looked through as builds lay it out."""
    fake = Fake.made(tmp_path / "build" / "bin")
    assert find.executable(fake.executable) == fake.executable
    assert find.executable(tmp_path / "build" / "bin") == fake.executable
    assert find.executable(tmp_path / "build") == fake.executable
    assert find.executable(tmp_path) == fake.executable


def test_path_is_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, or with a bare name, PATH says where it is."""
    fake = Fake.made(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    assert find.executable(None) == fake.executable
    assert find.executable(Path("llama-server")) == fake.executable
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutableNotFound, match=r"on PATH: install llama\.cpp"):
        find.executable(None)


@pytest.mark.parametrize("name", ["llama-cli", "llama-run", "main", "llama", "llama-bench"])
def test_another_program_points_at_the_server(tmp_path: Path, name: str) -> None:
    """Who names another program of llama.cpp is told of the server beside it, if there is one."""
    other = tmp_path / name
    other.write_text("#!/bin/sh\n", encoding="utf-8")
    other.chmod(0o755)
    with pytest.raises(ExecutableNotFound, match=r"does not serve requests.*install"):
        find.executable(other)
    Fake.made(tmp_path)
    with pytest.raises(ExecutableNotFound, match="llama-server', which is beside it"):
        find.executable(other)


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    """A missing file, an empty folder and a file without permission say what to do."""
    with pytest.raises(ExecutableNotFound, match="there is no program at"):
        find.executable(tmp_path / "nothing")
    with pytest.raises(ExecutableNotFound, match="there is no llama-server in"):
        find.executable(tmp_path)
    plain = tmp_path / "llama-server"
    plain.write_text("x", encoding="utf-8")
    plain.chmod(0o644)
    with pytest.raises(ExecutableNotFound, match="chmod"):
        find.executable(plain)
    plain.unlink()
    Fake.made(tmp_path)
    with pytest.raises(ExecutableNotFound, match=r"there is .*llama-server"):
        find.executable(tmp_path / "llama-cli")


def test_a_spec_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of a spec comes first; without one and without a wheel there is none."""
    fake = Fake.made(tmp_path)
    assert program_for(fake.spec()) == LlamaServer(fake.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    if find.prebuilt():
        assert program_for(LlamaCpp("x.gguf")) == Prebuilt()
    else:
        with pytest.raises(ExecutableNotFound):
            program_for(LlamaCpp("x.gguf"))


# -- what a build can do -----------------------------------------------------------------------


def test_help_tells_the_flags() -> None:
    """Flags are those that begin a line, and none that an explanation names."""
    new, old = Build.of(ALL), Build.of(OLD)
    assert new.has("--lora-init-without-apply")
    assert new.has("--no-webui")
    assert new.has("-ctxcp")
    assert not new.has("--not-a-flag")
    assert new.has_sockets
    assert new.tells_at_4
    assert new.flash_takes_word
    assert not old.has_sockets
    assert not old.tells_at_4
    assert not old.flash_takes_word
    with pytest.raises(ExecutableNotFound, match="--model"):
        Build.of("usage: cat [FILE]").check(Path("/bin/cat"))


def test_devices_are_read() -> None:
    """GPUs come with what is free on them, and a build without any has none."""
    text = (
        "Available devices:\n"
        "  CUDA0: NVIDIA GeForce RTX 4090 (24564 MiB, 23012 MiB free)\n"
        "  Vulkan1: AMD (RADV) (16368 MiB, 16000 MiB free)\n"
    )
    assert build.devices_of(text) == (Device("CUDA0", 23012 * MIB), Device("Vulkan1", 16000 * MIB))
    assert build.devices_of("Available devices:\n  (none)\n") == ()


def test_a_program_is_asked_once(tmp_path: Path) -> None:
    """The help of a program is remembered, until the file changes."""
    fake = Fake.made(tmp_path)
    first = build.known(fake.executable)
    assert first.has_sockets
    assert build.known(fake.executable) is first
    assert build.devices(fake.executable, first) == ()
    with pytest.raises(ExecutableNotFound):
        build.known(tmp_path / "nothing")


# -- arguments ---------------------------------------------------------------------------------


def test_every_number_is_told() -> None:
    """Whatever decides about memory is on the command, and the key is not."""
    flags = told(SETTINGS)
    assert flags["--model"] == "/models/-odd name.gguf"
    assert flags["--ctx-size"] == "1024"
    assert flags["--parallel"] == "4"
    assert flags["--batch-size"] == flags["--ubatch-size"] == "64"
    assert flags["--threads"] == flags["--threads-batch"] == "3"
    assert flags["--threads-http"] == "6"
    assert flags["--gpu-layers"] == "7"
    assert flags["--cache-ram"] == "33"
    assert flags["--ctx-checkpoints"] == "2"
    assert flags["--cache-type-k"] == flags["--cache-type-v"] == "f16"
    assert flags["--flash-attn"] == "auto"
    assert flags["--fit"] == "off"
    assert flags["--kv-unified-per-slot"] == "512"
    assert flags["--load-mode"] == "mmap"
    assert flags["--host"] == "/run/x/s.sock"
    assert flags["--api-key-file"] == "/run/x/key"
    assert flags["--log-verbosity"] == "4"
    assert {"--jinja", "--no-ui", "--metrics", "--slots", "--offline", "--kv-unified"} <= {*flags}
    assert {"--no-context-shift"} <= {*flags}
    assert not {"--port", "--swa-full", "--embedding", "--api-key"} & {*flags}


def test_an_older_build_gets_what_it_knows() -> None:
    """Flags that came later are left out, and a port takes the place of a socket."""
    place = attrs.evolve(PLACE, host="127.0.0.1", port=1234)
    flags = told(SETTINGS, OLD, place)
    assert flags["--port"] == "1234"
    assert not {"--cache-ram", "--fit", "--load-mode", "--flash-attn", "--offline"} & {*flags}
    assert told(attrs.evolve(SETTINGS, cache_type="q8_0"), OLD, place)["--flash-attn"] == ""
    without = OLD.replace("--kv-unified", "--other")
    with pytest.raises(ExecutableNotFound, match="--kv-unified"):
        told(SETTINGS, without, place)
    with pytest.raises(ExecutableNotFound, match="--api-key-file"):
        told(SETTINGS, ALL.replace("--api-key-file", "--other"))


def test_kinds_are_told() -> None:
    """Models that make vectors or scores are loaded for that; pictures and adapters are named."""
    assert told(attrs.evolve(SETTINGS, pooling="mean"))["--pooling"] == "mean"
    assert "--jinja" not in told(attrs.evolve(SETTINGS, pooling="mean"))
    assert "--reranking" in told(attrs.evolve(SETTINGS, pooling="rank"))
    both = attrs.evolve(SETTINGS, adapters=(Path("/a"), Path("/b")), projector=Path("/p"))
    words = arguments(both, Build.of(ALL), PLACE)
    assert [words[i + 1] for i, word in enumerate(words) if word == "--lora"] == ["/a", "/b"]
    assert "--lora-init-without-apply" in words
    assert told(both)["--mmproj"] == "/p"
    with pytest.raises(BadRequest, match="comma"):
        told(attrs.evolve(SETTINGS, adapters=(Path("/a,b"),)))
    exact = told(attrs.evolve(SETTINGS, cache_type="f32", mapped=False, full_window=True))
    assert exact["--flash-attn"] == "off"
    assert exact["--load-mode"] == "none"
    assert "--swa-full" in exact
    own = told(SETTINGS, place=attrs.evolve(PLACE, template_file=Path("/run/x/template")))
    assert own["--chat-template-file"] == "/run/x/template"


def test_caches_fit_the_limit(tmp_path: Path) -> None:
    """The prompt cache takes a part of what the limit leaves, and nothing where nothing is left."""
    path = tiny_model(tmp_path / "model.gguf")
    header = gguf.read_header(path)
    for limit_mb, most in ((None, MAX_CACHE_MIB), (400, 200), (4000, MAX_CACHE_MIB)):
        spec = LlamaCpp(path, max_memory_mb=limit_mb)
        plan = planned.plan(spec, header, None, 0, ())
        settings = made(spec, "model", header, plan, None)
        assert 0 < settings.cache_mib <= most
        assert plan.need.total_bytes + settings.cache_mib * MIB <= plan.limit_bytes
        tight = attrs.evolve(plan, limit_bytes=plan.need.total_bytes)
        assert made(spec, "model", header, tight, None).cache_mib == 0


def test_the_servers_own_gpus_are_planned_for(tmp_path: Path) -> None:
    """Layers go where the program has room for them, within the limit, and none without a GPU."""
    path = tiny_model(tmp_path / "model.gguf")
    header = gguf.read_header(path)
    spec = LlamaCpp(path)
    assert planned.plan(spec, header, None, 0, ()).gpu_layers == 0
    assert planned.plan(spec, header, None, 0, (2**34,)).gpu_layers > 0
    fewer = attrs.evolve(spec, max_gpu_layers=1)
    assert planned.plan(fewer, header, None, 0, (2**34,)).gpu_layers == 1
    assert planned.plan(spec, header, None, 4, (2**34,)).gpu_layers == 0


def test_what_a_server_says_of_itself_counts(tmp_path: Path) -> None:
    """Slots, tools and sight come from the server; what it does not say is not known."""
    header = gguf.read_header(tiny_model(tmp_path / "model.gguf"))
    props = {
        "total_slots": 3,
        "chat_template_caps": {"supports_tools": False},
        "modalities": {"vision": True},
    }
    able = facts.abilities(props, SETTINGS, header, ("a",))
    assert (able.slots, able.tools, able.vision, able.adapters) == (3, False, True, ("a",))
    able = facts.abilities({"total_slots": "x", "modalities": 1}, SETTINGS, header, ())
    assert (able.slots, able.tools, able.vision, able.fill_in) == (4, None, None, None)


def test_tokens_for_filling_in_are_found(tmp_path: Path) -> None:
    """By their numbers where the file tells them, else by how they are written."""
    keys = {
        f"tokenizer.ggml.fim_{name}_token_id": n for n, name in enumerate(("pre", "suf", "mid"))
    }
    numbered = tiny_model(tmp_path / "a.gguf", metadata=keys)
    assert facts.fill_in(gguf.read_header(numbered)) == (0, 1, 2)
    names = {290: "<|fim_prefix|>", 291: "<|fim_suffix|>", 292: "<|fim_middle|>"}
    written = tiny_model(tmp_path / "b.gguf", control=names)
    assert facts.fill_in(gguf.read_header(written)) == tuple(names.values())


# -- around it ---------------------------------------------------------------------------------


def test_settings_of_others_do_not_reach_it() -> None:
    """Variables that llama-server reads as settings, and keys, are left out; the rest stays."""
    own = {
        "LLAMA_ARG_CTX_SIZE": "1",
        "llama_arg_host": "0.0.0.0",  # noqa: S104 - what must not reach it
        "LLAMA_API_KEY": "k",
        "LLAMA_LOG_FILE": "x",
        "LLAMA_SERVER_ROUTER_PORT": "1",
        "HF_TOKEN": "t",
        "CUDA_VISIBLE_DEVICES": "1",
        "PATH": "/bin",
    }
    kept = environment(own)
    assert kept == {"CUDA_VISIBLE_DEVICES": "1", "PATH": "/bin", "GGML_NO_BACKTRACE": "1"}


def test_its_folder_is_its_owners_alone() -> None:
    """The folder, the key and the files can be read by nobody else, and are removed."""
    opened = address.Address.open(sockets=True)
    try:
        assert stat.S_IMODE(opened.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(opened.key_file.stat().st_mode) == 0o600
        assert opened.key_file.read_text(encoding="utf-8") == opened.key
        assert len(opened.key) >= 32
        assert opened.port is None
        assert opened.host == str(opened.folder / "s.sock")
        other = address.Address.open(sockets=False)
        assert other.key != opened.key
        assert (other.host, other.socket) == ("127.0.0.1", None)
        assert other.port
        other.close()
    finally:
        opened.close()
        opened.close()
    assert not opened.folder.exists()


def test_long_paths_get_a_short_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the usual folder's path is too long for a socket, another one is taken."""
    deep = tmp_path / ("x" * 120)
    monkeypatch.setenv("LLMDISPATCHER_RUNTIME_DIR", str(deep))
    opened = address.Address.open(sockets=True)
    assert opened.folder.parent != deep
    opened.close()
    assert not [*deep.iterdir()]


def test_folders_of_the_dead_are_removed() -> None:
    """A folder of a process that is gone goes; one of a process that lives stays."""
    parent = Path(os.environ["LLMDISPATCHER_RUNTIME_DIR"])
    gone, alive, other = (
        parent / "place-999999999-x",
        parent / f"place-{os.getpid()}-x",
        parent / "y",
    )
    for folder in (gone, alive, other):
        folder.mkdir()
    address.clear(parent)
    assert not gone.exists()
    assert alive.exists()
    assert other.exists()
    address.clear(parent / "nothing")


def test_the_wheel_needs_a_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen application is told to name a program instead."""
    opened = address.Address.open(sockets=False)
    try:
        command = Prebuilt().command(SETTINGS, opened)
        assert command[0] == sys.executable
        assert opened.key not in " ".join(command)
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        with pytest.raises(ExecutableNotFound, match="no Python"):
            Prebuilt().command(SETTINGS, opened)
    finally:
        opened.close()


def test_limits_that_are_not_kept_say_so() -> None:
    """Nothing is claimed for a process that is gone, for GPUs, or where no limit was asked for."""
    gone = holding.hold(999_999_999, Caps(memory_bytes=2**30))
    assert not any(measure.enforced for measure in gone if measure.what == "memory")
    assert holding.stacks_bytes(3) % 3 == 0
