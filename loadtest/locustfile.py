"""For Locust's own command and web page.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000
    locust -f loadtest/locustfile.py --host ... --headless -u 20 -t 1m --user-rate 0.2 FastUser
    locust -f loadtest/locustfile.py --host ... --headless --find-max-p95 2 --profiles fast

A user is a source of recordings, `--user-rate` a second in an open loop: 20 users at 0.2 are 4
requests a second, whatever the answers take. With `--find-max-p95` users are added in steps.
"""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest import audio
from loadtest.arrivals import LAWS, arrivals
from loadtest.drive import allow_many_connections
from loadtest.shape import SteppedShape
from loadtest.tally import Tally
from loadtest.users import OpenLoop, SpeechUser


class ProfileUser(SpeechUser):
    """A user of one profile. What the run's users share are attributes of the class."""

    abstract = True
    recordings: tuple[audio.Recording, ...] = ()
    tally = Tally()
    numbers = itertools.count()

    def open_loop(self) -> OpenLoop:
        given: Any = self.environment.parsed_options
        runner: Any = self.environment.runner
        # Users differ, and so do the processes of a distributed run.
        seed = given.seed + next(self.numbers) + 10_000 * runner.worker_index
        due = arrivals(given.arrivals, given.user_rate, seed)
        recordings = audio.in_turns(self.recordings, seed)
        loop = OpenLoop(self, due, recordings, self.tally.of(self.profile))
        self.tally.sources.add(loop)
        return loop

    def on_stop(self) -> None:
        super().on_stop()
        self.tally.sources.discard(self.loop)


class DenseUser(ProfileUser):
    profile = "dense"


class BalancedUser(ProfileUser):
    profile = "balanced"


class FastUser(ProfileUser):
    profile = "fast"


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--user-rate", type=float, default=0.2, help="requests a second of a user")
    parser.add_argument("--arrivals", choices=LAWS, default=LAWS[0], help="law of the open loop")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and order")
    add = partial(parser.add_argument, include_in_web_ui=False)  # read once, when Locust starts
    add("--profiles", default="", help="users of these alone, own ones too: a,b")
    add("--manifest", default="", help="CSV or TSV with columns path, transcript")
    add("--recordings", type=int, default=200, help="most of the manifest's")
    add("--language", default="", help="that every request names")
    add("--request-timeout", type=float, default=60.0, help="seconds")
    add("--find-max-p95", type=float, default=0.0, help="seconds: add users until p95 is more")
    add("--step-time", type=float, default=30.0, help="seconds of its steps")
    add("--step-users", type=int, default=1, help="users of its first step")


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    given: Any = environment.parsed_options
    allow_many_connections()
    if given.manifest:
        recordings = audio.read_manifest(Path(given.manifest), given.recordings, given.seed)
    else:
        recordings = audio.built_in()
    ProfileUser.recordings = recordings
    ProfileUser.language = given.language or None
    ProfileUser.network_timeout = ProfileUser.connection_timeout = given.request_timeout
    if given.profiles:
        names = dict.fromkeys(name.strip() for name in given.profiles.split(","))
        environment.user_classes[:] = [_user_of(name) for name in names]
    if given.find_max_p95:
        environment.shape_class = SteppedShape(
            given.step_users, given.step_time, given.find_max_p95, ProfileUser.tally.take
        )
        environment.shape_class.runner = environment.runner
    # Imports took seconds; on the loop's old clock Locust's --run-time would be over already.
    gevent.get_hub().loop.update_now()


def _user_of(profile: str) -> type[ProfileUser]:
    for known in (DenseUser, BalancedUser, FastUser):
        if known.profile == profile:
            return known
    name = "".join(c for c in profile.title() if c.isalnum()) + "User"
    return type(name, (ProfileUser,), {"profile": profile})


@events.test_start.add_listener
def begin(**_: Any) -> None:
    ProfileUser.tally.reset()


@events.test_stop.add_listener
def tell(environment: Environment, **_: Any) -> None:
    """Prints what Locust's own table does not have."""
    for line in ProfileUser.tally.lines():
        print(line)
    given: Any = environment.parsed_options
    if isinstance(environment.shape_class, SteppedShape):
        most, rate = environment.shape_class.most_users, given.user_rate
        found = f"{most} users, {most * rate:g} requests/s" if most else "none"
        print(f"highest step whose p95 held: {found}")
