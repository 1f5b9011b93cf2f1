"""The models of a service: each an engine and a pipeline of its own, on one device in turns.

The first is there from the start and stays. The others are loaded when they are asked for, and the
one that nobody has asked for longest goes when another needs its room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from service.audio.reader import AudioReader
from service.config import ServerConfig
from service.engine.budget import MIB, weights_budget
from service.engine.engine import LOAD_TIMEOUT_S, Engine
from service.engine.faults import give_back_memory, is_out_of_memory
from service.engine.intake import RETRY_AFTER_S
from service.engine.turns import Turns
from service.errors import (
    ConfigError,
    EngineError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    WinnowError,
)
from service.evidence import Evidence, evidence_of
from service.families.fitting import all_fitted
from service.memory import give_back
from service.metrics import Metrics
from service.model.formats.find import name_of, shipped_as
from service.model.formats.names import other_names
from service.model.protocol import ModelInfo, SpeechModel
from service.pipeline import Pipeline
from service.profiles import Profile, all_profiles, own_tables

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.05  # at a model that is to go, whether anybody still waits for it


@dataclass(frozen=True, slots=True)
class Known:
    """A model that may be asked for. `name` is what answers carry, `source` what the operator calls
    it, `others` what else it is called; `evidence`: of each profile, by name."""

    name: str
    source: str
    others: tuple[str, ...]
    profiles: Mapping[str, Profile]
    evidence: Mapping[str, tuple[Evidence, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model that is loaded, or the first one while it loads."""

    name: str
    engine: Engine
    pipeline: Pipeline

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits for it."""
        return self.pipeline.num_open > 0 or self.engine.num_outstanding > 0


class Models:
    """Lives on one event loop. `load` gives the model of settings, on the thread of its engine."""

    def __init__(
        self, config: ServerConfig, load: Callable[[ServerConfig], SpeechModel], metrics: Metrics
    ) -> None:
        """Raises ConfigError for a file of profiles or a default profile that cannot be used."""
        self._config, self._load, self._metrics = config, load, metrics
        self.known = _known(config)
        self._meant = _meant(self.known, config.model_aliases)
        # Of those that were loaded once, what they can have.
        self._profiles = {name: known.profiles for name, known in self.known.items()}
        self._turns = Turns()
        self._reader = AudioReader(config.audio_threads, config.max_audio_seconds, metrics)
        self.first = self._make(next(iter(self.known)))
        self._served = {self.first.name: self.first}  # the least recently used first
        self._loading: dict[str, asyncio.Task[Served]] = {}
        self._changing = asyncio.Lock()  # one is loaded or unloaded at a time
        self._sizes: dict[str, int] = {}  # bytes of weights, of all that were loaded once
        self._draining = False
        # Those of sessions that are connected, which may be silent for long.
        self.in_conversation: Callable[[], Collection[str]] = tuple

    @property
    def loaded(self) -> dict[str, ModelInfo]:
        """By name, the least recently used first. Looking is not using."""
        there = (one for one in self._served.values() if one.engine.is_loaded)
        return {one.name: one.engine.model.info for one in there}

    def profiles_of(self, name: str) -> Mapping[str, Profile]:
        """By name: what was asked for, until the model of that name has been loaded and said what
        of it there can be."""
        return self._profiles[name]

    def names_of(self, name: str) -> tuple[str, ...]:
        """All that the model of that name can be asked for as, its name first."""
        return (name, *(other for other, meant in self._meant.items() if meant == name != other))

    def name_of(self, asked: str | None) -> str:
        """The name of the model that is meant, the first one for None. Raises ModelNotFound."""
        if asked is None:
            return self.first.name
        if asked not in self._meant:
            names = ", ".join(name for known in self.known for name in self.names_of(known))
            raise ModelNotFound(
                f"The model '{asked}' is not served here. Served: {names}.", "model"
            )
        return self._meant[asked]

    def find(self, name: str) -> Served:
        """The model of that name, used with this. Raises NotReady where it is not loaded."""
        served = self._served.pop(name, None)
        if served is None:
            raise NotReady(f"the model {name} is not loaded", RETRY_AFTER_S)
        self._served[name] = served
        return served

    async def get(self, name: str, timeout_s: float) -> Served:
        """The model of that name, loaded first if it is not there.

        Raises NotReady where that takes longer, where there is no room beside those that are in
        use, or while draining; EngineError where it cannot be loaded.
        """
        if name in self._served:
            return self.find(name)
        if name not in self._loading:
            task = self._loading[name] = asyncio.create_task(self._load_further(name))
            task.add_done_callback(partial(self._no_longer_loading, name))
        done, _ = await asyncio.wait({self._loading[name]}, timeout=timeout_s)
        if not done:
            raise NotReady(f"the model {name} is still loading", RETRY_AFTER_S)
        return done.pop().result()

    async def unload(self, name: str) -> bool:
        """Finishes what a model has accepted, and lets go of it; whether it was loaded.

        Raises InvalidRequest for the first one, which stays.
        """
        if name == self.first.name:
            raise InvalidRequest(f"The model '{name}' is the first one here, and stays.", "model")
        async with self._changing:
            served = self._served.get(name)
            if served is not None:
                await self._let_go(served)
        return served is not None

    @property
    def failed_for_good(self) -> bool:
        """Whether the first model could not be loaded, or the device of any was given up."""
        return any(served.engine.failed_for_good for served in self._served.values())

    def raise_failure(self) -> None:
        """Raises why, if one has failed for good."""
        for served in self._served.values():
            if served.engine.failed_for_good:
                served.engine.wait_ready(0)

    def start(self) -> None:
        """Begins to load the first one, and returns at once."""
        self._reader.start()
        self.first.engine.start()

    def begin_drain(self) -> None:
        """No new work, and no other model, from now on; what was accepted goes on."""
        self._draining = True
        for served in self._served.values():
            served.engine.begin_drain()

    async def drain(self, grace_s: float) -> None:
        """Waits for accepted work; answers the rest with NotReady."""
        self.begin_drain()
        engines = [served.engine for served in self._served.values()]
        await asyncio.gather(*(asyncio.to_thread(engine.drain, grace_s) for engine in engines))

    async def stop(self) -> None:
        """Ends everything; whatever is not answered gets NotReady."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        engines = [served.engine for served in self._served.values()]
        await asyncio.gather(*(asyncio.to_thread(engine.stop) for engine in engines))
        self._reader.close()

    def _make(self, name: str) -> Served:
        """Not loaded yet. The first one has to have every profile that somebody made."""
        known, is_first = self.known[name], name == next(iter(self.known))
        config, metrics = replace(self._config, model=known.source), self._metrics.of(name)

        def load() -> SpeechModel:
            model = self._load(config)
            fit = all_fitted(model, known.profiles, config.adapters, refuses=is_first)
            pipeline.use(fit)
            self._profiles[name] = fit
            give_back()  # what other weights were made from
            return model

        def warm_up() -> Iterable[Profile]:
            return pipeline.profiles.values()

        engine = Engine(load, config, metrics, warm_up=warm_up, turns=self._turns)
        pipeline = Pipeline(engine, config, metrics, known.profiles, self._reader)
        return Served(name, engine, pipeline)

    def _no_longer_loading(self, name: str, task: asyncio.Task[Served]) -> None:
        del self._loading[name]
        if not task.cancelled():
            task.exception()  # read, or asyncio reports it as forgotten where nobody waits any more

    async def _load_further(self, name: str) -> Served:
        async with self._changing:
            await self._make_room(name)
            served = await self._start_somehow(name)
            if name not in self._sizes:
                self._sizes[name] = served.engine.model.info.weight_bytes
                try:
                    await self._make_room(name)
                except WinnowError:
                    await self._end(served)
                    raise
            self._served[name] = served
            return served

    async def _start_somehow(self, name: str) -> Served:
        """Loads it. Where there is not the memory, others go first."""
        while True:
            if self._draining:
                raise NotReady("the service is shutting down", RETRY_AFTER_S)
            try:
                return await self._start(name)
            except Exception as error:
                unused = self._longest_unused()
                if unused is None or not is_out_of_memory(error):
                    why = error if isinstance(error, WinnowError) else type(error).__name__
                    raise EngineError(f"the model {name} cannot be loaded: {why}") from error
                log.warning("there is no memory for %s: %s goes", name, unused.name)
                await self._let_go(unused)

    async def _start(self, name: str) -> Served:
        served = self._make(name)
        served.engine.start()
        try:
            await asyncio.to_thread(served.engine.wait_ready, LOAD_TIMEOUT_S)
        except BaseException:
            await self._end(served)
            raise
        return served

    async def _make_room(self, name: str) -> None:
        """Lets the least recently used go until the model fits; one that is new takes nothing yet.

        Raises NotReady where those that are in use leave it no room, EngineError where the first
        one alone does not.
        """
        first = self.first.engine.model.info
        size, limit = self._sizes.get(name, 0), weights_budget(first.device, self._config)
        if limit and size + first.weight_bytes > limit:
            raise EngineError(
                f"the model {name} takes {size / MIB:.0f} MB, and {limit / MIB:.0f} are for all "
                f"(models_memory_mb), {first.weight_bytes / MIB:.0f} of them taken by {first.name}"
            )
        while limit and sum(one.weight_bytes for one in self.loaded.values()) + size > limit:
            unused = self._longest_unused()
            if unused is None:
                others = ", ".join(self._served)
                raise NotReady(f"no room for the model {name} beside {others}", RETRY_AFTER_S)
            await self._let_go(unused)

    def _longest_unused(self) -> Served | None:
        """Of those that may go and have nothing to do."""
        kept = {self.first.name, *self.in_conversation()}
        others = (one for one in self._served.values() if one.name not in kept)
        return next((one for one in others if not one.is_busy), None)

    async def _let_go(self, served: Served) -> None:
        """Who asks for it meanwhile waits until it can be loaded again."""
        del self._served[served.name]
        give_up = time.monotonic() + self._config.drain_seconds
        while served.is_busy and time.monotonic() < give_up:
            await asyncio.sleep(LOOK_AGAIN_S)
        await self._end(served)
        log.info("%s is unloaded", served.name)

    async def _end(self, served: Served) -> None:
        await asyncio.to_thread(served.engine.stop)
        self._metrics.of(served.name).forget()
        await asyncio.to_thread(give_back_memory)


def _known(config: ServerConfig) -> dict[str, Known]:
    """By name, the first one first."""
    known: dict[str, Known] = {}
    own = own_tables(config.profiles_file)
    for source in (config.model, *config.models):
        model = shipped_as(source)
        profiles = all_profiles(own, model)
        evidence = {p.name: evidence_of(p, source, own, model) for p in profiles.values()}
        name = name_of(source)
        if name in known and known[name].source != source:
            raise ConfigError(f"models {known[name].source!r} and {source!r} are both {name}")
        others = tuple(other_names(name)) if model else ()
        known[name] = Known(name, source, others, profiles, evidence)
    return known


def _meant(known: Mapping[str, Known], aliases: Iterable[str]) -> dict[str, str]:
    """Whatever a model can be asked for as, and the name of that model. The first one has the
    aliases that are nobody's name."""
    names = list(known)
    others = {other: name for name in reversed(names) for other in known[name].others}
    return {alias: names[0] for alias in aliases} | others | {name: name for name in names}
