"""The application: its parts wired together, its life from loading to the end of the drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import __version__
from service.api import detect, errors, explain, live, openai, ops, realtime, transcribe
from service.api import models as model_routes
from service.api.context import RequestContext
from service.api.keys import RequireKey, keys_of, open_paths
from service.api.manners import Manners, ShareAnswers
from service.api.pace import Uploads
from service.api.server import DrainingServer
from service.api.services import Services
from service.config import ServerConfig
from service.live.registry import LiveSessions
from service.memory import give_back_regularly
from service.metrics import Metrics
from service.model.protocol import SpeechModel
from service.models import Models
from service.requests.windows import stop


def create_app(
    config: ServerConfig,
    load: Callable[[ServerConfig], SpeechModel],
    metrics: Metrics | None = None,
) -> FastAPI:
    """The ASGI application. `load` gives the model of settings: the first on its engine's thread
    once the application starts, the others when they are asked for.

    Raises ConfigError for a file of profiles or keys, or a default profile, that cannot be used.
    Until the model is loaded, and again while draining, work is refused and health still answers.
    """
    metrics = metrics or Metrics()
    models = Models(config, load, metrics)
    sessions = LiveSessions(lambda name: models.find(name).engine, config, metrics)
    models.in_conversation = sessions.models
    services = Services(config, models, sessions, metrics, Uploads(config))
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
    for room in (transcribe, detect, explain, openai, model_routes, live, realtime, ops):
        app.include_router(room.router)
    return app


def serve(config: ServerConfig, load: Callable[[ServerConfig], SpeechModel]) -> None:
    """Serves until SIGTERM or SIGINT, then drains for at most `drain_seconds`.

    Raises ConfigError for a setting that cannot be used, CannotListen for an address, and the
    error of loading if the model cannot be loaded, EngineError where the engine ended by itself.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    app = create_app(config, load)
    services: Services = app.state.services
    server = DrainingServer(app, services)
    server.run()
    services.models.raise_failure()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    services.models.start()
    giving_back = asyncio.create_task(give_back_regularly())
    try:
        yield
    finally:
        await stop(giving_back)
        await services.models.drain(services.config.drain_seconds)
        await services.models.stop()
        services.live.close()
