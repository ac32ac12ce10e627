"""``llmdispatcher models`` and ``--model NAME``: what could be used, from everywhere."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from embedding_gguf import encoder
from http_hosts import HOSTS
from loopback import Answer, Got, Loopback
from model_stores import DEMO, OllamaStore, file, hub_file
from tiny_gguf import sparse_model

from llmdispatcher import LlamaCpp, ModelCard, RequestError, Scripted
from llmdispatcher.cli import main
from llmdispatcher.columns import Column, table
from llmdispatcher.models_view import text
from llmdispatcher.named import Named, model_file
from llmdispatcher.stock import CLOUDS, Item
from llmdispatcher.vendors.contract import VendorSpec
from llmdispatcher.vendors.http import scout as scouting
from llmdispatcher.vendors.http.preset import row
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.plan.fits import Fit, weigher
from llmdispatcher.vendors.llamacpp.stores.places import FOLDER, OLLAMA, Place

KEYS = {
    "vendor": str,
    "model": str,
    "local": bool,
    "context_tokens": int,
    "max_output_tokens": None,
    "capabilities": list,
    "strengths": list,
    "input_usd_per_million": str,
    "output_usd_per_million": str,
    "free": bool,
    "price_version": str,
    "quality": int,
    "size_bytes": int,
    "parameters": int,
    "architecture": str,
    "quantisation": str,
    "store": None,
    "path": str,
    "projector": None,
    "fit": dict,
    "problem": None,
}
"""Of each object, and what the embedded model has there; programs rely on them."""

SCOUT = scouting.Scout

HUGE = {"width": 16384, "layers": 100, "heads": 64, "heads_kv": 64, "feed_forward": 65536}
"""A model of 800 GB, of which a file system keeps some kilobytes."""

List = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without anything in it, no keys, no servers, and nothing piped."""
    for cloud in CLOUDS:
        for name in row(cloud).key_env:
            monkeypatch.delenv(name, raising=False)
    for name in [*os.environ]:
        if name.startswith(("OLLAMA_", "HF_", "HUGGINGFACE_", "LLAMA_CACHE", "XDG_", "LMSTUDIO_")):
            monkeypatch.delenv(name)
    found = tmp_path / "home"
    found.mkdir()
    monkeypatch.setenv("HOME", str(found))
    monkeypatch.delenv("LLMDISPATCHER_MODELS", raising=False)
    see(monkeypatch, [])
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield found


def see(monkeypatch: pytest.MonkeyPatch, asks: Sequence[tuple[int, str]]) -> None:
    """Have the scout look at these ports instead, as long as a slow machine takes."""
    monkeypatch.setattr("llmdispatcher.stock.LOCAL_LIST_S", 10.0)
    monkeypatch.setattr(scouting, "CONNECT_S", 10.0)
    monkeypatch.setattr(scouting, "LOOK_S", 10.0)
    monkeypatch.setattr(scouting, "Scout", lambda: SCOUT(asks))


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> List:
    """Run ``models --json``, and return what it lists."""

    def run(*words: str, code: int = 0) -> list[dict[str, Any]]:
        assert main(["models", "--json", *words]) == code
        rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return rows

    return run


def names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is listed, as VENDOR/MODEL."""
    return [f"{each['vendor']}/{each['model']}" for each in rows]


# -- what is listed ----------------------------------------------------------------------------


def test_a_fresh_machine_has_the_embedded_model(listed: List) -> None:
    """With all keys that there are, and what it takes of this machine."""
    (only,) = listed()

    assert [*only] == [*KEYS]
    assert all(isinstance(only[key], kind or type(None)) for key, kind in KEYS.items())
    assert (only["vendor"], only["model"], only["local"]) == ("embedded", "demo", True)
    assert (only["context_tokens"], only["quantisation"], only["free"]) == (512, "Q8_0", True)
    assert only["size_bytes"] == DEMO.stat().st_size
    assert only["fit"]["fits"]
    assert 0 < only["fit"]["needed_bytes"] < only["fit"]["limit_bytes"]


@pytest.fixture
def stored(home: Path) -> Path:
    """A home in which four programs have models."""
    store = OllamaStore(home / ".ollama" / "models")
    store.pull("tiny:latest", model=DEMO)
    store.pull("tiny:1m", model=DEMO)
    store.write("broken:latest", "{")
    file(home / ".lmstudio" / "models" / "maker" / "Tiny-GGUF" / "Tiny-Q8_0.gguf")
    hub_file(home / ".cache" / "huggingface" / "hub", "other/Tiny-GGUF", "Tiny-Q8_0.gguf", DEMO)
    encoder(file(home / "models" / "vectors.gguf"))
    sparse_model(
        home / "models" / "huge.gguf",
        storage="F16",
        **HUGE,
    )
    return home


ALL = [
    "embedded/demo",
    "llamacpp/huge",
    "llamacpp/vectors",
    "llamacpp/broken:latest",
    "llamacpp/tiny:1m",
    "llamacpp/tiny:latest",
    "llamacpp/maker/Tiny-GGUF/Tiny-Q8_0",
    "llamacpp/other/Tiny-GGUF/Tiny-Q8_0",
]


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        (["--provider", "embedded"], [0]),
        (["--provider", "llamacpp"], [1, 2, 3, 4, 5, 6, 7]),
        (["--capable", "embed"], [2]),
        (["--capable", "chat, tools"], [0, 1, 4, 5, 6, 7]),
        (["--max-size", "1GiB"], [0, 2, 4, 5, 6, 7]),
        (["--fits"], [0, 2, 4, 5, 6, 7]),
        (["--free"], [0, 1, 2, 4, 5, 6, 7]),
        (["--free", "--fits", "--capable", "schema", "--max-size", "3.5mb"], [0, 4, 5, 6, 7]),
    ],
    ids=str,
)
def test_files_are_listed_as_they_are_wished(
    listed: List, words: list[str], wanted: list[int]
) -> None:
    """Those that cannot be used only where nothing is wished of a model."""
    assert names(listed(*words)) == [ALL[index] for index in wanted]


@pytest.mark.usefixtures("stored")
def test_a_file_tells_all_that_its_header_says(listed: List) -> None:
    """And where it lies, and whether it fits."""
    rows = {each["model"]: each for each in listed()}
    tiny, huge, broken = rows["tiny:latest"], rows["huge"], rows["broken:latest"]

    assert (tiny["store"], tiny["architecture"], tiny["context_tokens"]) == ("ollama", "llama", 512)
    assert Path(tiny["path"]).read_bytes() == DEMO.read_bytes()
    assert tiny["fit"]["fits"]
    assert not huge["fit"]["fits"]
    assert huge["fit"]["needed_bytes"] > huge["fit"]["limit_bytes"] > 0
    assert "ollama pull" in broken["problem"]
    assert broken["fit"] is None


@pytest.mark.usefixtures("stored")
def test_people_see_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a model, whole where it is piped, and below it what cannot be used."""
    assert main(["models"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()

    assert head.split() == ["model", "context", "can", "$/M", "in/out", "quality", "size",
                            "stored", "fits", "here"]  # fmt: skip
    size = f"{DEMO.stat().st_size / 1e6:.1f}"
    assert lines[0].split() == ["embedded/demo", "512", "tools", "schema", "free", "1", size,
                                "MB", "Q8_0", "yes"]  # fmt: skip
    assert "no, needs " in lines[1]
    assert lines[-2] == "1 file cannot be used:"
    assert lines[-1].startswith("  broken:latest: ")


def test_a_folder_that_is_named_is_looked_at(listed: List, tmp_path: Path) -> None:
    """By an option, or by a variable."""
    file(tmp_path / "mine" / "a.gguf")

    assert names(listed("--folder", str(tmp_path / "mine"))) == ["embedded/demo", "llamacpp/a"]


def test_a_variable_names_folders(
    listed: List, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several, as PATH does."""
    file(tmp_path / "mine" / "a.gguf")
    monkeypatch.setenv("LLMDISPATCHER_MODELS", f"/nowhere{os.pathsep}{tmp_path / 'mine'}")

    assert names(listed()) == ["embedded/demo", "llamacpp/a"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--capable", "chat,vison"], "did you mean 'vision'?"),
        (["--max-size", "much"], "such as 4GB"),
        (["--max-size", ""], "such as 4GB"),
    ],
)
def test_a_wish_that_cannot_be_read_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and what may be."""
    assert main(["models", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--provider", "nobody"], "llmdispatcher providers"),
        (["--provider", "groq", "--free"], "leave out"),
        (["--capable", "vision"], "leave out"),
    ],
)
def test_nothing_to_list_is_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 1, and a list that is empty."""
    assert main(["models", "--json", *words]) == 1
    out, err = capsys.readouterr()
    assert (json.loads(out), told in err) == ([], True)


def test_names_that_no_terminal_should_obey_are_shown(
    home: Path, listed: List, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor any that are no text."""
    file(home / "models" / "\x1b[31mred.gguf")
    file(Path(os.fsdecode(os.fsencode(home / "models") + b"/\xff.gguf")))
    (home / "models" / "\x1b[2Jbad.gguf").write_bytes(b"")
    file(home / "models" / "._hidden.gguf")
    file(home / "models" / ".gguf")

    assert {each["model"] for each in listed("--provider", "llamacpp")} == {
        "\x1b[31mred",
        "\x1b[2Jbad",
        "?",
    }
    assert main(["models"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_without_psutil_models_are_listed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only whether they fit is not known, which is told."""
    monkeypatch.setitem(sys.modules, "llmdispatcher.vendors.llamacpp.limits.probe", None)
    monkeypatch.delattr("llmdispatcher.vendors.llamacpp.limits.probe", raising=False)

    assert main(["models", "--json"]) == 0
    out, err = capsys.readouterr()
    (only,) = json.loads(out)
    assert only["fit"] is None
    assert "whether a file fits is not known" in err
    assert "pip install" in err


@pytest.mark.parametrize(
    ("fit", "told"),
    [
        (Fit(fits=True, layers=33), "yes"),
        (Fit(fits=True, layers=33, gpu_layers=33), "yes, on the GPU"),
        (Fit(fits=True, layers=33, gpu_layers=12), "12 of 33 layers on the GPU"),
        (Fit(fits=False, needed_bytes=5_100_000_000, limit_bytes=3 * 10**9),
         "no, needs 5.1 GB of 3.0 GB"),
        (Fit(fits=False, problem="for another engine"), "no"),
        (None, ""),
    ],
    ids=str,
)  # fmt: skip
def test_whether_it_fits_is_told_in_words(fit: Fit | None, told: str) -> None:
    """With what is missing, or what a GPU takes."""
    card = ModelCard(vendor="v", model="m", local=True, context_tokens=1)
    drawn = text([Item(card=card, fit=fit)], is_tty=False)

    assert drawn.splitlines()[1].split(maxsplit=3)[3:] == ([told] if told else [])


# -- clouds ------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """All that would go to a cloud comes here, and is refused."""
    with Loopback(lambda _: Answer(status=502)) as made:
        monkeypatch.setenv("HTTPS_PROXY", made.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield made


def test_a_cloud_that_has_a_key_is_listed_without_asking_it(
    listed: List, proxy: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is known of its models: the list prices, and what they are made for."""
    monkeypatch.setenv("MISTRAL_API_KEY", "secret")

    rows = {each["model"]: each for each in listed() if each["vendor"] == "mistral"}

    code = rows["codestral-latest"]
    assert (code["input_usd_per_million"], code["output_usd_per_million"]) == ("0.3", "0.9")
    assert (code["strengths"], code["context_tokens"]) == (["code"], 128_000)
    assert (code["local"], code["free"], code["fit"]) == (False, False, None)
    assert code["price_version"] == "list prices, 2026-11-20"
    assert not proxy.got


def test_clouds_without_a_key_are_listed_when_asked_for(listed: List) -> None:
    """All of them, or one by name."""
    clouds = [each for each in listed("--all") if not each["local"]]

    assert len(clouds) >= 60
    assert {each["vendor"] for each in listed("--provider", "groq")} == {"groq"}


def test_a_cloud_is_asked_for_its_list_when_told_to(
    proxy: Loopback, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where that fails it says why, without the key, and what is known is listed."""
    monkeypatch.setenv("GROQ_API_KEY", "a-secret-key")

    assert main(["models", "--refresh", "--json"]) == 0

    out, err = capsys.readouterr()
    assert any(each["vendor"] == "groq" for each in json.loads(out))
    assert "groq told no models" in err
    assert "a-secret-key" not in out + err
    assert {got.method for got in proxy.got} == {"CONNECT"}


def test_a_key_that_cannot_be_one_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing else is lost by it."""
    monkeypatch.setenv("GROQ_API_KEY", "two\nlines")

    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert "embedded/demo" in out
    assert "GROQ_API_KEY" in err


# -- servers, and vendors that are given -------------------------------------------------------


def test_servers_that_run_here_are_listed(listed: List, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they tell of their models."""
    host = next(host for host in HOSTS if host.preset == "llama-server")

    def answer(got: Got) -> Answer:
        head = {"server": "llama.cpp", "content-type": "application/json"}
        body = host.models if got.path.endswith("/models") else b'{"status":"ok"}'
        return Answer(headers=head, chunks=(body,))

    with Loopback(answer) as server:
        port = int(server.url.rpartition(":")[2])
        see(monkeypatch, [(port, "/health"), (port, "/v1/models")])
        rows = listed("--provider", "llama-server")

    assert rows
    assert all(each["local"] and each["free"] for each in rows)


def test_vendors_that_are_given_are_listed(
    listed: List, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nobody else; an unknown price stays unknown."""
    assert main(["models", "--json"], vendors=[Scripted("x", name="mine", price=None)]) == 0
    (mine,) = json.loads(capsys.readouterr().out)

    assert (mine["vendor"], mine["free"], mine["input_usd_per_million"]) == ("mine", None, None)
    assert main(["models"], vendors=[Scripted("x", name="mine", price=None)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "?"


def test_files_that_are_given_are_weighed_by_their_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they would be loaded; one that is gone is told."""
    given: list[VendorSpec] = [
        LlamaCpp(DEMO, name="well"),
        LlamaCpp(DEMO, name="tight", max_memory_mb=1),
        LlamaCpp(tmp_path / "gone.gguf", name="gone"),
        Scripted("x", name="scripted"),
    ]

    assert main(["models", "--json"], vendors=given) == 0
    well, tight, gone, scripted = json.loads(capsys.readouterr().out)

    assert (well["quantisation"], well["fit"]["fits"], well["path"]) == ("Q8_0", True, str(DEMO))
    assert (tight["fit"]["fits"], tight["fit"]["limit_bytes"]) == (False, 2**20)
    assert "no file" in gone["problem"]
    assert (scripted["vendor"], scripted["fit"]) == ("scripted", None)


# -- a table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_table_is_as_wide_as_the_terminal(width: int) -> None:
    """What does not fit is left out by worth, and said to be."""
    columns = [
        Column(title="model", cells=["maker/" + "long" * 12, "short"], folds=True),
        Column(title="context", cells=["8k", "128k"], right=True, worth=2),
        Column(title="price", cells=["free", "10/50"], worth=3),
        Column(title="remarks", cells=["x" * 30, ""], worth=1),
        Column(title="empty", cells=["", ""], worth=9),
    ]

    drawn = table(columns, is_tty=True, width=width)
    lines = [line for line in drawn.splitlines() if "want of room" not in line]

    assert max(map(len, lines)) <= width
    assert "empty" not in drawn
    assert ("not shown" in drawn) is (width < 200)
    assert ("price" in lines[0]) or ("context" not in lines[0])
    assert "".join("".join(line.split()[0] for line in lines[2:])).startswith("maker/long")


def test_a_piped_table_is_whole() -> None:
    """A line a row, whatever its length, and nothing that a terminal would obey."""
    rows = ["a" * 300, "\x1b[31mred\nline"]
    drawn = table([Column(title="model", cells=rows, folds=True)], is_tty=False)

    assert drawn.splitlines() == ["model", "a" * 300, "[31mred line"]


def test_a_narrow_terminal_gets_what_fits(
    screen: Any, monkeypatch: pytest.MonkeyPatch, stored: Path
) -> None:
    """In the real program, on a real terminal."""
    monkeypatch.setenv("COLUMNS", "60")
    shown = screen("models", "--provider", "llamacpp")

    assert shown.end() == 0
    head = shown.text.partition("cannot be used")[0]
    assert "tiny:latest" in head
    assert max(map(len, head.splitlines()[:-1])) <= 70
    assert "not shown, for want of room" in head


# -- --model NAME ------------------------------------------------------------------------------


def where(home: Path) -> list[Place]:
    """Return two stores of a home with models of the same name."""
    store = OllamaStore(home / "ollama")
    store.pull("tiny:latest", model=DEMO)
    store.pull("tiny:copy", model=DEMO)
    other = sparse_model(home / "other.gguf", vocab=300)
    store.pull("maker/pair:1b", model=DEMO)
    store.pull("maker/pair:2b", model=other)
    store.write("broken:latest", "{")
    file(home / "files" / "maker" / "Some-GGUF" / "Some-Q8_0.gguf")
    file(home / "files" / "Pair-One.gguf")
    return [Place(OLLAMA, home / "ollama"), Place(FOLDER, home / "files")]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("tiny", "ollama:tiny:latest"),
        ("TINY:Latest", "ollama:tiny:latest"),
        ("ollama/tiny", "ollama:tiny:latest"),
        ("tiny:copy", "ollama:tiny:copy"),
        ("pair:1b", "ollama:maker/pair:1b"),
        ("Some-Q8_0", "files/maker/Some-GGUF/Some-Q8_0.gguf"),
        ("some-q8_0.gguf", "files/maker/Some-GGUF/Some-Q8_0.gguf"),
        ("maker/Some-GGUF", "files/maker/Some-GGUF/Some-Q8_0.gguf"),
        ("folder/Pair-One", "files/Pair-One.gguf"),
    ],
)
def test_a_name_is_found(tmp_path: Path, given: str, wanted: str) -> None:
    """Whole, by its end or by its repository, in whatever letters."""
    found = model_file(given, where(tmp_path))

    if wanted.startswith("ollama:"):
        assert Path(found.path).name.startswith("sha256-")
        assert Path(found.path).read_bytes() == DEMO.read_bytes()
        assert found.name == wanted.removeprefix("ollama:")
    else:
        assert found.path == str(tmp_path / wanted)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("pair", "several are called that: ollama/maker/pair:1b, ollama/maker/pair:2b; name one"),
        ("tinny", "did you mean tiny:"),
        ("Some", "did you mean maker/Some-GGUF/Some-Q8_0"),
        ("xyzzy-900b", "llmdispatcher models lists"),
        ("broken", "ollama pull broken:latest"),
    ],
)
def test_a_name_that_means_no_model_is_told(tmp_path: Path, given: str, told: str) -> None:
    """With those that it could mean."""
    with pytest.raises(RequestError, match="--model") as raised:
        model_file(given, where(tmp_path))

    assert told in str(raised.value)


def test_without_any_model_the_ways_out_are_told(home: Path) -> None:
    """On a machine with no store."""
    with pytest.raises(RequestError, match="path of a GGUF file"):
        model_file("llama3")


@pytest.mark.parametrize("given", ["./tiny", "/x/tiny", "~/tiny", "../tiny", "no.gguf", "a\0b"])
def test_a_path_stays_a_path(tmp_path: Path, given: str) -> None:
    """Whether it is there or not: whoever loads it says so."""
    assert model_file(given, where(tmp_path)) == Named(given)


def test_a_file_that_is_there_goes_before_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere on a command line."""
    places = where(tmp_path)
    (tmp_path / "tiny").write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    assert model_file("tiny", places) == Named("tiny")


def test_a_folder_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a model's name hides no model; any other is told to be a folder by the load."""
    places = where(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)

    assert model_file("tiny", places).name == "tiny:latest"
    assert model_file("other", places) == Named("other")


def test_a_model_of_ollama_answers(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run here from its own store, which is left as it was."""
    blobs = [*(stored / ".ollama" / "models" / "blobs").iterdir()]
    before = [(blob, blob.stat().st_mtime_ns, stat.S_IMODE(blob.stat().st_mode)) for blob in blobs]

    asked = ["--temperature", "0", "What is the capital of France?"]
    assert main(["ask", "--json", "--model", "tiny", *asked]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert "Paris" in reply["text"]
    assert (reply["vendor"], reply["model"]) == ("llamacpp", "tiny:latest")

    after = [(blob, blob.stat().st_mtime_ns, stat.S_IMODE(blob.stat().st_mode)) for blob in blobs]
    assert after == before


# -- whether it fits ---------------------------------------------------------------------------


def test_what_fits_is_what_a_plan_says(tmp_path: Path) -> None:
    """With this machine's memory: of a file that writes, one that embeds, and one too large."""
    weigh = weigher()
    vectors = encoder(tmp_path / "e.gguf")
    huge = sparse_model(
        tmp_path / "huge.gguf",
        storage="F16",
        **HUGE,
    )

    assert weigh(read_header(DEMO)).fits
    assert weigh(read_header(vectors)).fits
    too_large = weigh(read_header(huge))
    assert not too_large.fits
    assert (too_large.needed_bytes or 0) > (too_large.limit_bytes or 0)
