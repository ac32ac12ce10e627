"""Vendors of other packages, found by the name of an entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdispatcher import ConfigError, Dispatcher
from llmdispatcher.vendors import discovery
from llmdispatcher.vendors.llamacpp.vendor import embedded
from llmdispatcher.vendors.scripted import Scripted


def install(folder: Path, package: str, *points: str) -> None:
    """Put a package into a folder, with entry points and the metadata that pip would write."""
    (folder / f"{package}.py").write_text(
        "from llmdispatcher import Scripted\n"
        f"def vendor():\n    return Scripted('from {package}', name='{package}')\n"
        "number = 5\n",
        encoding="utf-8",
    )
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join([f"[{discovery.GROUP}]", *points])
    (info / "entry_points.txt").write_text(lines, encoding="utf-8")


def test_built_in_vendors_are_registered_like_any_other() -> None:
    """The names of our own vendors come from our own entry points."""
    assert {"embedded", "llamacpp", "scripted"} <= set(discovery.names())
    assert discovery.find("scripted") is Scripted
    assert discovery.find("embedded") is embedded


def test_a_vendor_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers a vendor is used by its name, without being imported by hand."""
    install(tmp_path, "acme_one", "acme = acme_one:vendor")
    monkeypatch.syspath_prepend(str(tmp_path))

    with Dispatcher("acme") as d:
        assert d.send("hi").text == "from acme_one"
    assert "acme" in discovery.names()


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (["bad = acme_two:nothing"], "cannot be imported"),
        (["bad = no_such_module_here:vendor"], "cannot be imported"),
        (["bad = acme_two:number"], "is not callable"),
    ],
)
def test_a_vendor_that_cannot_be_used_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[str], told: str
) -> None:
    """A broken entry point is a ConfigError that names the vendor and the place."""
    install(tmp_path, "acme_two", *points)
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match=told) as caught:
        Dispatcher("bad")

    assert "vendor 'bad'" in str(caught.value)


def test_two_packages_with_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wins silently where two packages offer a vendor of the same name."""
    install(tmp_path, "acme_three", "twice = acme_three:vendor")
    install(tmp_path, "acme_four", "twice = acme_four:vendor")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match="several packages offer"):
        discovery.find("twice")


def test_an_unknown_name_lists_the_known() -> None:
    """A name that nobody offers is answered with those that somebody does."""
    with pytest.raises(ConfigError, match=r"known: .*embedded.*llamacpp"):
        discovery.find("ollamma")
