"""The application: its parts wired together, its life from loading to the end of the drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import __version__
from service.api import detect, errors, explain, live, models, openai, ops, realtime, transcribe
from service.api.context import RequestContext
from service.api.keys import RequireKey, keys_of, open_paths
from service.api.manners import Manners, ShareAnswers
from service.api.pace import Uploads
from service.api.server import DrainingServer
from service.api.services import Services
from service.config import ServerConfig
from service.engine.engine import Engine
from service.evidence import evidence_of
from service.gather import stop
from service.live.registry import LiveSessions
from service.memory import give_back_regularly
from service.metrics import Metrics
from service.model.protocol import SpeechModel
from service.pipeline import Pipeline
from service.profiles import all_profiles, check_depth, own_tables


def create_app(
    config: ServerConfig, load: Callable[[], SpeechModel], metrics: Metrics | None = None
) -> FastAPI:
    """The ASGI application. `load` runs on the device thread once the application starts.

    Raises ConfigError for a file of profiles or keys, or a default profile, that cannot be used.
    Until the model is loaded, and again while draining, work is refused and health still answers.
    """
    metrics = metrics or Metrics()
    own = own_tables(config.profiles_file)
    profiles = all_profiles(own, config.model)
    evidence = {p.name: evidence_of(p, config.model, own) for p in profiles.values()}

    def load_checked() -> SpeechModel:
        model = load()
        check_depth(profiles, model.info.num_encoder_layers)
        return model

    engine = Engine(load_checked, config, metrics, warm_up=tuple(profiles.values()))
    pipeline = Pipeline(engine, config, metrics, profiles)
    sessions = LiveSessions(engine, config, metrics)
    services = Services(config, engine, pipeline, sessions, metrics, Uploads(config), evidence)
    keys = keys_of(config)
    app = FastAPI(
        title="Winnow",
        version=__version__,
        lifespan=_lifespan,
        # Their pages load scripts from a CDN; `/` and /openapi.json need nothing from outside.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.started_at = int(time.time())
    # The last that is added is asked first.
    if keys:
        app.add_middleware(RequireKey, keys=keys, open_paths=open_paths(config))
    app.add_middleware(Manners, root_path=config.root_path, origins=config.cors_origins)
    app.add_middleware(RequestContext, metrics=metrics)
    if config.cors_origins:
        app.add_middleware(ShareAnswers, origins=config.cors_origins)
    errors.install(app)
    for room in (transcribe, detect, explain, openai, models, live, realtime, ops):
        app.include_router(room.router)
    return app


def serve(config: ServerConfig, load: Callable[[], SpeechModel]) -> None:
    """Serves until SIGTERM or SIGINT, then drains for at most `drain_seconds`.

    Raises ConfigError for a setting that cannot be used, CannotListen for an address, and the
    error of loading if the model cannot be loaded, EngineError where the engine ended by itself.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    app = create_app(config, load)
    services: Services = app.state.services
    server = DrainingServer(app, services)
    server.run()
    if services.engine.failed_for_good:
        services.engine.wait_ready(0)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.pipeline.start()
    services.engine.start()
    giving_back = asyncio.create_task(give_back_regularly())
    try:
        yield
    finally:
        await stop(giving_back)
        services.engine.begin_drain()
        await asyncio.to_thread(services.engine.drain, services.config.drain_seconds)
        await asyncio.to_thread(services.engine.stop)
        services.pipeline.close()
        services.live.close()
