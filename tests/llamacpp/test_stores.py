"""Models that other programs keep on this machine: found by their layouts, and within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from embedding_gguf import encoder
from lora_gguf import lora
from model_stores import DEMO, OllamaStore, file, hub_file
from tiny_gguf import sparse_model, tiny_model
from vision_gguf import tiny_projector

from llmdispatcher import Capability
from llmdispatcher.vendors.llamacpp.plan.fits import Fit
from llmdispatcher.vendors.llamacpp.stores.look import FoundModel, look, names
from llmdispatcher.vendors.llamacpp.stores.places import (
    FOLDER,
    HUGGING_FACE,
    LLAMA_CPP,
    LM_STUDIO,
    OLLAMA,
    SERVICE,
    Place,
    places,
)
from llmdispatcher.vendors.llamacpp.stores.walk import MAX_DEPTH, Walk


def found(store: str, folder: Path) -> dict[str, FoundModel]:
    """Look in one place, and return the models by name."""
    findings = look([Place(store, folder)])
    assert not findings.notes
    return {model.name: model for model in findings.models}


# -- where -------------------------------------------------------------------------------------


def test_the_usual_places_are_those_of_each_program(tmp_path: Path) -> None:
    """With nothing set, below the user's home; the user's own folder first."""
    where = [(place.store, place.folder) for place in places({}, tmp_path)]

    assert where == [
        (FOLDER, tmp_path / "models"),
        (OLLAMA, tmp_path / ".ollama" / "models"),
        (OLLAMA, SERVICE),
        (LM_STUDIO, tmp_path / ".lmstudio" / "models"),
        (HUGGING_FACE, tmp_path / ".cache" / "huggingface" / "hub"),
        (LLAMA_CPP, tmp_path / ".cache" / "llama.cpp"),
        (LLAMA_CPP, tmp_path / "Library" / "Caches" / "llama.cpp"),
    ]


@pytest.mark.parametrize(
    ("environment", "store", "folder"),
    [
        ({"OLLAMA_MODELS": "/data/ollama"}, OLLAMA, "/data/ollama"),
        ({"LMSTUDIO_HOME": "/data/lms"}, LM_STUDIO, "/data/lms/models"),
        ({"HF_HUB_CACHE": "/data/a", "HF_HOME": "/data/b"}, HUGGING_FACE, "/data/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/data/hub"}, HUGGING_FACE, "/data/hub"),
        ({"HF_HOME": "/data/hf"}, HUGGING_FACE, "/data/hf/hub"),
        ({"XDG_CACHE_HOME": "/data/x"}, HUGGING_FACE, "/data/x/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/data/x"}, LLAMA_CPP, "/data/x/llama.cpp"),
        ({"LLAMA_CACHE": "/data/llama"}, LLAMA_CPP, "/data/llama"),
        ({"LLMDISPATCHER_MODELS": f"/a{os.pathsep}/b"}, FOLDER, "/b"),
        ({"OLLAMA_MODELS": "~/o"}, OLLAMA, "HOME/o"),
    ],
    ids=str,
)
def test_variables_name_other_places(
    tmp_path: Path, environment: dict[str, str], store: str, folder: str
) -> None:
    """Those that the programs read themselves."""
    wanted = Path(folder.replace("HOME", str(tmp_path)))

    assert Place(store, wanted) in places(environment, tmp_path)


def test_lm_studio_says_itself_where_its_models_are(tmp_path: Path) -> None:
    """Its home by a pointer or an older place, and its downloads by its settings."""

    def where() -> Path:
        (folder,) = [each.folder for each in places({}, tmp_path) if each.store == LM_STUDIO]
        return folder

    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert where() == tmp_path / ".cache" / "lm-studio" / "models"

    home = tmp_path / "elsewhere"
    home.mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{home}\n", encoding="utf-8")
    assert where() == home / "models"

    settings = home / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "big")}), encoding="utf-8")
    assert where() == tmp_path / "big"

    for broken in ("", "{", "[]", '{"downloadsFolder": 5}', "[" * 100_000):
        settings.write_text(broken, encoding="utf-8")
        assert where() == home / "models"


def test_a_place_that_two_programs_share_is_looked_at_once(tmp_path: Path) -> None:
    """llama.cpp keeps what it downloads in the cache of Hugging Face."""
    hub = str(tmp_path / "hub")
    where = places({"LLAMA_CACHE": hub, "HF_HUB_CACHE": hub}, tmp_path)

    assert [place.store for place in where if place.folder == Path(hub)] == [HUGGING_FACE]


# -- what --------------------------------------------------------------------------------------


def test_ollamas_models_have_their_names_and_facts(tmp_path: Path) -> None:
    """By manifests; names are as short as Ollama's own."""
    store = OllamaStore(tmp_path / "models")
    eye = tiny_projector(tmp_path / "eye.gguf")
    store.pull("tiny:latest", model=DEMO, template=DEMO)
    store.pull("tiny:1m", model=DEMO)
    store.pull("somebody/seeing:q8", model=DEMO, projector=eye)
    store.pull("hf.co/maker/model-GGUF:Q4", model=DEMO)

    models = found(OLLAMA, store.models)

    assert [*models] == [
        "hf.co/maker/model-GGUF:Q4",
        "somebody/seeing:q8",
        "tiny:1m",
        "tiny:latest",
    ]
    tiny = models["tiny:latest"]
    assert (tiny.store, tiny.architecture, tiny.quantisation) == (OLLAMA, "llama", "Q8_0")
    assert (tiny.context_tokens, tiny.size_bytes) == (512, DEMO.stat().st_size)
    assert tiny.parameters is not None
    assert Capability.CHAT in tiny.capabilities
    assert tiny.path.read_bytes() == DEMO.read_bytes()
    assert not any(model.problem for model in models.values())
    assert tiny.projector is None
    seeing = models["somebody/seeing:q8"]
    assert seeing.projector is not None
    assert seeing.projector.read_bytes() == eye.read_bytes()


def layer(kind: str, digest: str) -> dict[str, str]:
    """Return one of a manifest's layers."""
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest}


_ONE, _TWO = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("x" * (2**20 + 1), "longer than"),
        ([], "no JSON object"),
        ({"layers": {}}, "no JSON object"),
        ({"layers": []}, "no GGUF file here"),
        ({"layers": [5, None, {"mediaType": 5, "digest": []}]}, "no GGUF file here"),
        ({"layers": [layer("tensor", _ONE), layer("tensor", _TWO)]}, "no GGUF file here"),
        ({"layers": [layer("model", "sha256:../../etc/passwd")]}, "no GGUF file here"),
        ({"layers": [layer("model", _ONE), layer("model", _TWO)]}, "several files"),
        ({"layers": [layer("model", _ONE), layer("adapter", _TWO)]}, "adapter"),
        ({"layers": [layer("model", _ONE)]}, "ollama pull bad:latest"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_manifest_that_leads_to_no_file_is_told(
    tmp_path: Path, manifest: object, told: str
) -> None:
    """In words, with what to do; the others are found all the same."""
    store = OllamaStore(tmp_path)
    store.write("bad:latest", manifest)
    store.pull("good:latest", model=DEMO)

    models = found(OLLAMA, tmp_path)

    assert told in models["bad:latest"].problem
    assert not models["good:latest"].problem


def test_repositories_name_what_is_in_them(tmp_path: Path) -> None:
    """LM Studio's and Hugging Face's folders both: PUBLISHER/REPOSITORY/FILE."""
    file(tmp_path / "lms" / "maker" / "Tiny-GGUF" / "Tiny-Q8_0.gguf")
    hub = tmp_path / "hub"
    link = hub_file(hub, "maker/Tiny-GGUF", "Tiny-Q8_0.gguf", DEMO)
    hub_file(hub, "maker/Tiny-GGUF", "deep/Other.gguf", DEMO)
    hub_file(hub, "lonely", "Model.gguf", DEMO)

    assert [*found(LM_STUDIO, tmp_path / "lms")] == ["maker/Tiny-GGUF/Tiny-Q8_0"]
    models = found(HUGGING_FACE, hub)
    assert [*models] == ["lonely/Model", "maker/Tiny-GGUF/Tiny-Q8_0", "maker/Tiny-GGUF/deep/Other"]
    assert models["maker/Tiny-GGUF/Tiny-Q8_0"].path == link


def test_of_two_snapshots_the_current_one_counts(tmp_path: Path) -> None:
    """Whichever was downloaded first."""
    newer, hub = tiny_model(tmp_path / "newer.gguf", context=128), tmp_path / "hub"
    for repository, first, second in (("a/x", "f" * 40, "0" * 40), ("b/x", "0" * 40, "f" * 40)):
        hub_file(hub, repository, "x.gguf", newer, commit=first)  # the first is main
        hub_file(hub, repository, "x.gguf", DEMO, commit=second)

    models = found(HUGGING_FACE, hub)

    assert {name: model.context_tokens for name, model in models.items()} == {
        "a/x/x": 128,
        "b/x/x": 128,
    }


def test_a_model_in_several_files_is_one(tmp_path: Path) -> None:
    """By its first file, with the size of all; where that is missing it says so."""
    (tmp_path / "whole").mkdir()
    first = tiny_model(tmp_path / "whole" / "big.gguf", part_tensors=10)
    parts = sorted(first.parent.iterdir())
    for part in parts[1:]:
        file(tmp_path / "torn" / part.name, part)

    models = found(FOLDER, tmp_path)

    assert len(parts) > 1
    assert [*models] == ["torn/big", "whole/big"]
    assert (models["whole/big"].path, models["whole/big"].problem) == (first, "")
    assert models["whole/big"].size_bytes == sum(part.stat().st_size for part in parts)
    assert "not the first" in models["torn/big"].problem


def test_what_lets_a_model_see_goes_with_it(tmp_path: Path) -> None:
    """It is no model. In a repository it is for all that is there, elsewhere for its namesake."""
    repository = tmp_path / "lms" / "maker" / "Seer-GGUF"
    for folder in (repository, tmp_path / "mine"):
        file(folder / "Seer-7B-Q4_K_M.gguf")
        tiny_projector(folder / "mmproj-Seer-7B-F16.gguf")
        tiny_projector(folder / "mmproj-Seer-7B-BF16.gguf")
        file(folder / "Blind-1B.gguf")
    tiny_projector(repository / "unnamed.gguf")

    there, mine = found(LM_STUDIO, tmp_path / "lms"), found(FOLDER, tmp_path / "mine")

    assert [*mine] == ["Blind-1B", "Seer-7B-Q4_K_M"]
    assert mine["Seer-7B-Q4_K_M"].projector == tmp_path / "mine" / "mmproj-Seer-7B-F16.gguf"
    assert Capability.VISION in mine["Seer-7B-Q4_K_M"].capabilities
    assert mine["Blind-1B"].projector is None
    assert Capability.VISION not in mine["Blind-1B"].capabilities
    assert {model.projector for model in there.values()} == {repository / "mmproj-Seer-7B-F16.gguf"}


def test_a_model_that_embeds_is_known_as_one(tmp_path: Path) -> None:
    """It can embed, and nothing else."""
    encoder(tmp_path / "e.gguf")

    assert found(FOLDER, tmp_path)["e"].capabilities == {Capability.EMBED}


def test_what_is_no_model_says_what_it_is(tmp_path: Path) -> None:
    """Broken, foreign or for something else: found with a reason, and the rest with none."""
    file(tmp_path / "good.gguf")
    (tmp_path / "cut.gguf").write_bytes(DEMO.read_bytes()[:-100_000])
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "page.gguf").write_text("<!doctype html><html>", encoding="utf-8")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "notes.txt").write_text("no model", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.gguf")
    lora(tmp_path / "lora.gguf", tmp_path / "good.gguf")

    models = found(FOLDER, tmp_path)

    told = {
        "cut": "cut short",
        "empty": "empty",
        "gone": "no file",
        "lora": "LoRA",
        "page": "web page",
        "pipe": "pipe",
    }
    assert [*models] == sorted([*told, "good"])
    for name, words in told.items():
        assert words in models[name].problem, name
        assert models[name].capabilities == frozenset()
    assert not models["good"].problem


def test_whether_a_model_fits_is_asked_of_each(tmp_path: Path) -> None:
    """With its header, and only of those that could run."""
    file(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"")
    fit = Fit(fits=True, needed_bytes=5)

    good, bad = (
        look([Place(FOLDER, tmp_path)], weigh=lambda header: fit).models[index] for index in (1, 0)
    )

    assert (good.fit, bad.fit) == (fit, None)


# -- bounds ------------------------------------------------------------------------------------


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """Each folder is entered once, under one name; hidden ones are not."""
    file(tmp_path / "a" / "x.gguf")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    file(tmp_path / ".trash" / "old.gguf")

    assert [*found(FOLDER, tmp_path)] == ["a/x"]


def test_a_file_in_two_places_is_listed_once(tmp_path: Path) -> None:
    """By the shorter of its names; Ollama's tags of one file are names of their own."""
    file(tmp_path / "deep" / "maker" / "repo" / "x.gguf")
    where = [Place(FOLDER, tmp_path), Place(LM_STUDIO, tmp_path / "deep")]

    (model,) = look(where).models

    assert (model.store, model.name) == (LM_STUDIO, "maker/repo/x")


def test_a_folder_that_may_not_be_read_is_told() -> None:
    """And the others are looked at."""
    code = (
        "import os, sys, pathlib\n"
        "from llmdispatcher.vendors.llamacpp.stores import look, places, walk\n"
        "if not os.geteuid(): os.seteuid(65534)\n"  # root may read everything
        "root = pathlib.Path(sys.argv[1])\n"
        "where = [places.Place('folder', root), places.Place('ollama', root / 'closed' / 'in')]\n"
        "looked = walk.Walk()\n"
        "print([each.name for _, each in look.names(where, looked)], *looked.notes, sep='\\n')"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        file(root / "open" / "x.gguf")
        file(root / "closed" / "in" / "y.gguf")
        (root / "closed").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
        )
        (root / "closed").chmod(0o755)

    named, *notes = done.stdout.splitlines()
    assert named == "['open/x']"
    assert notes == [
        f"{root / 'closed'}: cannot be read: Permission denied",
        f"{root / 'closed' / 'in'}: you may not read it",
    ]


def test_five_thousand_files_are_found_within_bounds(tmp_path: Path) -> None:
    """All by name; those for whose headers there is no time are listed without facts."""
    small = tiny_model(tmp_path / "small.gguf", vocab=259, layers=1)
    for folder in range(50):
        (tmp_path / f"{folder:02}").mkdir()
        for number in range(100):
            os.link(small, tmp_path / f"{folder:02}" / f"m{number:02}.gguf")

    assert len(names([Place(FOLDER, tmp_path)], Walk(lambda: 0.0))) == 5001

    steps = iter([0.0] * 160 + [100.0] * 10_000)
    models = look([Place(FOLDER, tmp_path)], clock=lambda: next(steps), limit_s=50.0).models
    read = [model for model in models if not model.problem]
    assert 0 < len(read) < 200
    assert all(model.problem == "not read: there are too many files" for model in models[200:])


@pytest.mark.parametrize(
    ("limit_s", "entries", "told"), [(-1.0, 99, "after -1 s"), (9, 3, "3 files")]
)
def test_a_walk_that_stopped_says_so(
    tmp_path: Path, limit_s: float, entries: int, told: str
) -> None:
    """With the folder, and the bound."""
    for name in "abcdef":
        file(tmp_path / name / "x.gguf")
    walk = Walk(lambda: 0.0, limit_s=limit_s, max_entries=entries)

    assert len(names([Place(FOLDER, tmp_path)], walk)) < 6
    assert told in walk.notes[0]
    assert str(tmp_path) in walk.notes[0]


def test_a_walk_goes_only_so_deep(tmp_path: Path) -> None:
    """And says where it turned back."""
    deep = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    file(deep / "in.gguf")
    file(deep / "d" / "out.gguf")
    walk = Walk()

    assert [each.path for _, each in names([Place(FOLDER, tmp_path)], walk)] == [deep / "in.gguf"]
    assert "not looked at deeper" in walk.notes[0]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with a name that is no UTF-8."""
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(folder)  # noqa: PTH102 - pathlib takes no bytes
    path = Path(os.fsdecode(folder))
    file(path / "x.gguf")
    return path


def test_odd_names_are_found(odd: Path) -> None:
    """Whatever bytes a system allows."""
    (model,) = found(FOLDER, odd.parent).values()

    assert model.path == odd / "x.gguf"
    assert not model.problem


def test_a_large_model_is_weighed_by_its_header(tmp_path: Path) -> None:
    """A file of gigabytes is not read."""
    sparse_model(
        tmp_path / "large.gguf", vocab=32000, width=4096, layers=40, heads=32, feed_forward=14336
    )

    (model,) = found(FOLDER, tmp_path).values()

    assert model.size_bytes is not None
    assert model.size_bytes > 10 * 2**30
