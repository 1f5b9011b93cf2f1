"""CTranslate2's `model.bin`: named variables in one file, read without copying what is not asked.

Little endian: u32 version; string spec; u32 revision; u32 number of variables; each: string name,
u8 rank, u32 for each dimension, u8 type, u32 number of bytes, data; u32 number of aliases, each two
strings. A string is u16 length, its closing zero counted, and bytes (CTranslate2,
`python/ctranslate2/specs/model_spec.py`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import CheckpointError
from service.model.protocol import dtype_name

# Versions that have this layout. Whisper was never written in an older one.
OLDEST_VERSION, NEWEST_VERSION = 4, 6
SPEC, NEWEST_REVISION = "WhisperSpec", 3
MAX_RANK = 4

_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a variable's values are in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int


class Ct2Binary:
    """The variables of a `model.bin` that is in memory or mapped into it.

    Raises CheckpointError, and allocates nothing by what the file says of itself, where it is cut,
    is no Whisper model, or contradicts itself.
    """

    def __init__(self, data: memoryview, place: str) -> None:
        self._data = data
        self._place = place
        self.variables = self._read()

    def __contains__(self, name: str) -> bool:
        return name in self.variables

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises CheckpointError where the variable is missing."""
        return self._variable(name).shape

    def stored(self, name: str) -> Tensor:
        """A view of the variable as it is stored."""
        variable = self._variable(name)
        count = math.prod(variable.shape)
        if count == 0:
            return torch.empty(variable.shape, dtype=variable.dtype)
        flat = torch.frombuffer(
            self._data, dtype=variable.dtype, count=count, offset=variable.offset
        )
        return flat.view(variable.shape)

    def values(self, name: str) -> Tensor:
        """The variable as it is meant: floating point, quantised ones divided by their scales.

        A scale is one number, or one for each row (CTranslate2, `LayerSpec._quantize`). Raises
        CheckpointError where a scale is missing or does not fit.
        """
        tensor = self.stored(name)
        if tensor.is_floating_point():
            return tensor
        scale_name = f"{name}_scale"
        if scale_name not in self.variables:
            raise self.error(f"{name} is {dtype_name(tensor.dtype)} and has no {scale_name}")
        scale = self.stored(scale_name).float()
        if scale.numel() == 1:
            return tensor.float() / scale.reshape(())
        if scale.shape != tensor.shape[:1]:
            raise self.error(
                f"{scale_name} is {tuple(scale.shape)}, but {name} is {tuple(tensor.shape)}"
            )
        return tensor.float() / scale.view(-1, *[1] * (tensor.dim() - 1))

    def scalar(self, name: str) -> int | None:
        """A whole number that is stored as a variable, None where there is none."""
        if name not in self.variables:
            return None
        tensor = self.stored(name)
        if tensor.numel() != 1 or tensor.is_floating_point():
            raise self.error(f"{name} is {tuple(tensor.shape)}: one whole number is expected")
        return int(tensor.reshape(()).item())

    def _variable(self, name: str) -> Variable:
        if name not in self.variables:
            raise self.error(f"the variable {name} is missing")
        return self.variables[name]

    def error(self, what: str) -> CheckpointError:
        """An error that says where the file is."""
        return CheckpointError(f"{self._place}: {what}")

    def _read(self) -> Mapping[str, Variable]:
        cursor = _Cursor(self._data, self._place)
        version = cursor.number("I", "its version")
        if not OLDEST_VERSION <= version <= NEWEST_VERSION:
            raise self.error(
                f"no CTranslate2 model, or one of binary version {version}: versions "
                f"{OLDEST_VERSION} to {NEWEST_VERSION} are supported"
            )
        spec = cursor.string("its kind")
        if spec != SPEC:
            raise self.error(f"a CTranslate2 model of the kind {spec!r}; only {SPEC!r} is Whisper")
        revision = cursor.number("I", "its revision")
        if revision > NEWEST_REVISION:
            raise self.error(
                f"revision {revision} of {SPEC}; up to {NEWEST_REVISION} are supported"
            )
        variables: dict[str, Variable] = {}
        for _ in range(cursor.number("I", "the number of variables")):
            name = cursor.string("a variable's name")
            variables[name] = cursor.variable(name)
        for _ in range(cursor.number("I", "the number of aliases")):
            alias, name = cursor.string("an alias"), cursor.string("an alias")
            for suffix in ("", "_scale"):
                if name + suffix in variables:
                    variables[alias + suffix] = variables[name + suffix]
                elif not suffix:
                    raise self.error(f"{alias} stands for {name}, which is missing")
        if cursor.rest:
            raise self.error(f"{cursor.rest} bytes follow the end of the model")
        return variables


class _Cursor:
    """Reads forward, and says what it was reading where the file ends before it."""

    def __init__(self, data: memoryview, place: str) -> None:
        self._data, self._place, self._at = data, place, 0

    @property
    def rest(self) -> int:
        return len(self._data) - self._at

    def number(self, form: str, what: str) -> int:
        size = struct.calcsize(f"<{form}")
        at = self._skip(size, what)
        value: int = struct.unpack_from(f"<{form}", self._data, at)[0]
        return value

    def string(self, what: str) -> str:
        length = self.number("H", what)
        at = self._skip(length, what)
        raw = bytes(self._data[at : at + length])
        try:
            if raw.endswith(b"\0"):
                return raw[:-1].decode("utf-8")
        except UnicodeDecodeError:
            pass
        raise CheckpointError(f"{self._place}: damaged: {what} is not a string")

    def variable(self, name: str) -> Variable:
        rank = self.number("B", name)
        if rank > MAX_RANK:
            raise CheckpointError(f"{self._place}: damaged: {name} has {rank} dimensions")
        shape = tuple(self.number("I", name) for _ in range(rank))
        type_id = self.number("B", name)
        if type_id >= len(_DTYPES):
            raise CheckpointError(f"{self._place}: {name} is of the unknown type {type_id}")
        dtype = _DTYPES[type_id]
        num_bytes = self.number("I", name)
        if num_bytes != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(
                f"{self._place}: damaged: {name} has {num_bytes} bytes, which is not "
                f"{shape} of {dtype_name(dtype)}"
            )
        return Variable(shape, dtype, self._skip(num_bytes, name))

    def _skip(self, size: int, what: str) -> int:
        if size > self.rest:
            raise CheckpointError(
                f"{self._place}: cut off: {what} needs {size} bytes and {self.rest} are left"
            )
        at = self._at
        self._at += size
        return at
