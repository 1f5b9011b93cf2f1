"""Data packages: found without being imported, checked, converted once, by several at a time."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from service.errors import CheckpointError
from service.model.checkpoint import load_checkpoint
from service.model.formats import find, packages
from service.model.formats.cache import read_cached
from service.model.formats.find import find_model, read_folder
from service.model.formats.packages import DATA_PACKAGES, DataPackage, Part, find_files
from tests.checkpoints import openai_tokenizer
from tests.model.formats.ct2_writer import write_ct2
from tests.model.formats.test_ct2 import said

PUBLIC = {
    # Those of Systran/faster-whisper-base and Systran/faster-whisper-tiny.en on the hub.
    "whisper-base": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "whisper-tiny.en": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
}

FIXTURES = {"whisper-base": "base", "whisper-tiny.en": "tiny_en"}


@pytest.fixture
def installed(mini_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages on the path with a mini model in two parts, known as whisper-base."""
    site = tmp_path / "site"
    ct2 = write_ct2(tmp_path / "ct2", mini_folder)
    data = (ct2 / "model.bin").read_bytes()
    for n, part in enumerate((data[:1_000_001], data[1_000_001:]), 1):
        (site / f"data_part{n}").mkdir(parents=True)
        (site / f"data_part{n}" / "__init__.py").write_text("raise SystemExit('imported')")
        (site / f"data_part{n}" / f"model.bin.part{n}").write_bytes(part)
        info = site / f"winnow_test_part{n}-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: winnow-test-part{n}\nVersion: 1.0.0\n")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(ct2 / name, site / "data_part1")
    parts = tuple(
        Part(f"winnow-test-part{n}", "1.0.0", f"data_part{n}/model.bin.part{n}") for n in (1, 2)
    )
    package = DataPackage(parts, hashlib.sha256(data).hexdigest(), len(data), "made here")
    monkeypatch.setitem(DATA_PACKAGES, "whisper-base", package)
    monkeypatch.syspath_prepend(str(site))
    return site


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def test_the_model_is_that_of_the_package(
    installed: Path, mini_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):  # converted, and then from the cache
        loaded = load_checkpoint("whisper-base", device="cpu", cache_dir=cache)
        assert (loaded.name, loaded.license, loaded.owner) == ("whisper-base", "MIT", "openai")
        assert torch.equal(
            loaded.weights.decoder.embedding_VD,
            dict(read_folder(mini_folder).tensors())["model.decoder.embed_tokens.weight"],
        )
    [entry] = entries(cache)
    assert said(entry) == said(mini_folder)
    assert find_model("base", cache).source.place == str(entry)


def test_the_cache_is_enough(installed: Path, tmp_path: Path) -> None:
    """As in the image, where the package is not kept beside what was made of it."""
    find_model("whisper-base", tmp_path / "cache")
    shutil.rmtree(installed)
    find_model("whisper-base", tmp_path / "cache")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "manifest.json"])
def test_a_cache_that_was_changed_is_written_again(
    installed: Path, tmp_path: Path, name: str
) -> None:
    cache = tmp_path / "cache"
    find_model("whisper-base", cache)
    [entry] = entries(cache)
    before = (entry / name).read_bytes()
    (entry / name).write_bytes(before[:-40])
    find_model("whisper-base", cache)
    assert entries(cache) == [entry]
    assert (entry / name).read_bytes() == before


def test_a_cache_that_cannot_be_written_is_not_needed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    source = find_model("whisper-base", tmp_path / "cache").source
    assert "winnow-test-part1" in source.place
    assert dict(source.tensors())


def test_a_full_disk_leaves_nothing_behind(installed: Path, tmp_path: Path) -> None:
    """A limit on the size of files, so that writing fails in the midst of the weights."""
    cache, (soft, hard) = tmp_path / "cache", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, hard))
    try:
        source = find_model("whisper-base", cache).source
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "winnow-test-part1" in source.place
    assert entries(cache) == []


def test_an_entry_that_is_consistent_and_no_model_is_written_again(
    installed: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    find_model("whisper-base", cache)
    [entry] = entries(cache)
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "config.json").write_text("{}")
    manifest["config.json"] = hashlib.sha256(b"{}").hexdigest()
    (entry / "manifest.json").write_text(json.dumps(manifest))
    assert find_model("whisper-base", cache).source.place == str(entry)
    assert json.loads((entry / "config.json").read_text())


def test_several_processes_at_once_do_no_harm(installed: Path, tmp_path: Path) -> None:
    """Forked, so that they know the package that is made here."""
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=find_model, args=("base", cache)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    [entry] = entries(cache)
    assert read_cached(entry)


def test_a_package_with_another_file_is_refused(installed: Path, tmp_path: Path) -> None:
    path = installed / "data_part2" / "model.bin.part2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"its sha256 is .* reinstall winnow-test-part1==1"):
        find_model("whisper-base", tmp_path / "cache")
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=r"it has \d+ bytes, not \d+; reinstall"):
        find_model("whisper-base", tmp_path / "cache")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"winnow-test-part2 1\.0\.0 has no data_part2"):
        find_model("whisper-base", tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_what_cannot_be_had_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = (Part("winnow-no-such", "1.0.0", "a"), Part("winnow-nor-this", "1.0.0", "b"))
    missing = replace(DATA_PACKAGES["whisper-base"], parts=parts)
    monkeypatch.setitem(DATA_PACKAGES, "whisper-base", missing)

    def refuse(hub_id: str) -> Path:
        raise CheckpointError(f"{hub_id} could not be fetched from the hub: offline")

    monkeypatch.setattr(find, "download", refuse)
    with pytest.raises(CheckpointError) as refused:
        find_model("base", tmp_path)
    assert str(refused.value) == (
        "model 'base': the packages winnow-no-such and winnow-nor-this are not installed, and "
        "openai/whisper-base could not be fetched from the hub: offline"
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_the_real_packages_hold_what_is_known_in_public(
    name: str, request: pytest.FixtureRequest
) -> None:
    package = DATA_PACKAGES[name]
    try:
        versions = [metadata.version(part.package) for part in package.parts]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package.not_installed}, and it is what this reads")
    files = packages.find_files(package)
    assert files
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    assert digest.hexdigest() == PUBLIC[name] == package.sha256
    assert versions == [part.version for part in package.parts]
    loaded = request.getfixturevalue(FIXTURES[name]).checkpoint
    assert loaded.num_parameters == {"whisper-base": 72593920, "whisper-tiny.en": 37760256}[name]
    assert loaded.vocabulary.multilingual == (name == "whisper-base")


def test_what_the_scripts_install_is_what_is_looked_for() -> None:
    scripts = Path(__file__).parents[3] / "scripts"
    text = "".join((scripts / file).read_text() for file in ("models.txt", "models-test.txt"))
    wanted = {f"{p.package}=={p.version}" for d in DATA_PACKAGES.values() for p in d.parts}
    assert {line.split()[0] for line in text.splitlines() if "==" in line} == wanted
    assert text.count("--hash=sha256:") == len(wanted)


def test_a_manifest_names_every_file(installed: Path, tmp_path: Path) -> None:
    find_model("whisper-base", tmp_path / "cache")
    [entry] = entries(tmp_path / "cache")
    manifest = json.loads((entry / "manifest.json").read_text())
    assert {*manifest, "manifest.json"} == {path.name for path in entry.iterdir()}


@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny.en"])
def test_the_real_ones_split_text_as_openai_whisper_does(name: str) -> None:
    if find_files(DATA_PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed")
    source = find_model(name).source
    assert source.tokenizer is not None
    theirs = openai_tokenizer(multilingual=not name.endswith(".en"))
    for text in (" the theatre over there", "Isn't it?", " naïve 東京 👋🏽", "  \n two"):
        assert source.tokenizer.encode(text, add_special_tokens=False).ids == theirs.encode(text)
