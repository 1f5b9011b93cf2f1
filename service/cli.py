"""`winnow serve | transcribe | evaluate`.

Exit status: 0, 1 (failed), 2 (usage), 130 (interrupted), 141 (nobody reads the output any more).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service import __version__
from service.config import ServerConfig, load_config
from service.errors import ConfigError, InvalidRequest, WinnowError
from service.lab.cli import add_commands
from service.memory import here_to_stay
from service.text.formats import FORMATS
from service.threads import wait_briefly

if TYPE_CHECKING:
    from service.model.protocol import SpeechModel

# A command imports what it needs when it runs: torch takes seconds, help should not.

OK, FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; argparse exits with 2 on bad usage."""
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    args.arguments = arguments  # reports say how they were asked for
    wait_briefly(os.environ)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except (ConfigError, InvalidRequest) as error:
        print(f"winnow: {error}", file=sys.stderr)
        return USAGE
    except WinnowError as error:
        print(f"winnow: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("winnow: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough, as `head` does.
        _let_stdout_go()
        return PIPE_CLOSED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _let_stdout_go()
        print(f"winnow: cannot write: {error.strerror}", file=sys.stderr)
        return FAILED
    return status


def _let_stdout_go() -> None:
    """What is still buffered has to go somewhere, or the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="winnow", description="Speech to text, winnowed.")
    parser.add_argument("--version", action="version", version=f"winnow {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_transcribe(commands)
    add_commands(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="answer transcription requests over HTTP",
        description="Answers transcription requests over HTTP. Every setting is also an "
        "environment variable, WINNOW_<NAME>, or a key of the TOML file that WINNOW_CONFIG names; "
        "an option given here goes before both.",
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8000)")
    _add_model_options(parser)
    parser.add_argument(
        "--models",
        metavar="NAMES",
        help="further models, by commas, each loaded when it is first asked for",
    )
    parser.add_argument(
        "--default-profile", metavar="NAME", help="speed profile of requests that name none (dense)"
    )
    parser.set_defaults(run=_serve)


def _add_transcribe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "transcribe",
        help="transcribe files and folders",
        description="Transcribes files, and whatever audio folders hold. The text goes to standard "
        "output, or with --out to one file per recording; a recording whose file is there already "
        "is skipped, so an interrupted run can be started again. What cannot be read is named on "
        "standard error, and the rest goes on. Settings without an option here, as WINNOW_THREADS, "
        "are read from the environment and from the TOML file that WINNOW_CONFIG names.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=_path,
        metavar="FILE",
        help="a file, a folder, or - for a recording that is piped in",
    )
    _add_model_options(parser)
    parser.add_argument("--profile", metavar="NAME", help="speed profile (dense)")
    parser.add_argument("--language", help="a code or an English name; left out, it is detected")
    parser.add_argument("--task", choices=("transcribe", "translate"), default="transcribe")
    parser.add_argument(
        "--channels",
        choices=("mix", "split"),
        default="mix",
        help="split transcribes each channel on its own, as call recordings need (mix)",
    )
    parser.add_argument(
        "--no-vad", action="store_true", help="do not cut at silence, nor leave it out"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a recording of which a part cannot be read fails; left out, the rest of it is "
        "transcribed, and what is lost is named",
    )
    _add_output_options(parser.add_argument_group("output"))
    _add_decoding_options(parser.add_argument_group("decoding, as /transcribe has it"))
    parser.set_defaults(run=_transcribe)


def _path(typed: str) -> Path:
    """Nothing, as of a shell's variable that was never set, is not the current folder."""
    if not typed:
        raise argparse.ArgumentTypeError("a name is empty")
    return Path(typed)


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=FORMATS, default="text", help="(text)")
    group.add_argument(
        "--words",
        "--word-timestamps",
        dest="word_times",
        action="store_true",
        help="the time of each word, in json and verbose_json; lines of srt and vtt keep to them",
    )
    _add_subtitle_options(group)
    group.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="write DIR/<file>.txt, .json, .srt and so on; what is piped in is DIR/stdin.txt",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="write again what is in --out already; left out, that is skipped",
    )


def _add_subtitle_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--max-line-width",
        type=int,
        metavar="COLUMNS",
        help="of srt and vtt: break lines; a Chinese or Japanese character takes two columns",
    )
    parser.add_argument(
        "--max-line-count", type=int, metavar="N", help="lines of a subtitle, with a width"
    )
    parser.add_argument(
        "--max-words-per-line", type=int, metavar="N", help="words of a subtitle, without a width"
    )


# The parameters of `params.decoding`, which reads them as they are typed: what they mean, and what
# stands for their value in the help.
DECODING_OPTIONS = {
    "prompt": ("TEXT", "taken to have been said before, for spelling and style"),
    "hotwords": ("WORDS", "words to listen for"),
    "temperature": (
        "T[,T...]",
        "0 to 1; several are tried in turn where a text is not worth keeping (0,0.2,0.4,0.6,0.8,1)",
    ),
    "beam_size": ("N", "texts that are followed side by side at temperature 0, 1 to 8 (1)"),
    "patience": ("X", "of a beam: above 1 it looks longer for a better text, up to 10 (1)"),
    "length_penalty": ("X", "of a beam, 0 to 1; left out, a text's score is divided by its length"),
    "seed": ("N", "of sampling, which is what a temperature above 0 does (0)"),
    "prefix": ("TEXT", "that every window of 30 s begins with"),
    "suppress_tokens": (
        "IDS",
        "never said, by commas; -1 for the model's own: write --suppress-tokens=-1,13",
    ),
    "compression_ratio_threshold": ("X", "above it a text only repeats itself (2.4)"),
    "logprob_threshold": ("X", "average log-probability below which a text is in doubt (-1)"),
    "no_speech_threshold": ("X", "0 to 1: above it a doubtful window is silent (0.6)"),
}


def _add_decoding_options(group: argparse._ArgumentGroup) -> None:
    for name, (value, meaning) in DECODING_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar=value, help=meaning)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        help="a name (whisper-base, the default; small.en, turbo, distil-large-v3, ...), a hub id, "
        "a folder of the hub's or CTranslate2's format, a .pt file of openai-whisper, or 'fake', "
        "which answers with made-up words, for drills",
    )
    parser.add_argument("--device", help="auto (the default), cpu, cuda or cuda:N")
    parser.add_argument("--dtype", help="auto (the default), int8, bfloat16, float16 or float32")
    parser.add_argument(
        "--profiles-file",
        "--profiles",
        dest="profiles_file",
        type=Path,
        metavar="TOML",
        help="a file of further speed profiles",
    )


def _config(args: argparse.Namespace, **more: Any) -> ServerConfig:
    return load_config(
        os.environ,
        model=args.model,
        device=args.device,
        dtype=args.dtype,
        profiles_file=args.profiles_file,
        **more,
    )


def _load(config: ServerConfig) -> SpeechModel:
    """Runs on the engine's thread, and imports torch there."""
    from service.families.load import load_served

    return load_served(config)


def _serve(args: argparse.Namespace) -> int:
    with here_to_stay():
        from service.api.app import serve
        from service.families import load  # noqa: F401 - for the engine's thread

    config = _config(
        args,
        host=args.host,
        port=args.port,
        models=args.models,
        default_profile=args.default_profile,
    )
    serve(config, _load)
    return OK


def _transcribe(args: argparse.Namespace) -> int:
    from service.files import FilesRequest, transcribe_files
    from service.text.subtitles import Layout

    config = _config(args)
    asked = FilesRequest(
        paths=tuple(args.paths),
        profile=args.profile,
        language=args.language,
        task=args.task,
        decoding=_decoding(args),
        word_times=args.word_times,
        strict=args.strict,
        form=args.format,
        layout=Layout(args.max_line_width, args.max_line_count, args.max_words_per_line),
        split_channels=args.channels == "split",
        out=args.out,
        vad=not args.no_vad,
        overwrite=args.overwrite,
    )
    num_failed = transcribe_files(config, partial(_load, config), asked)
    return FAILED if num_failed else OK


def _decoding(args: argparse.Namespace) -> dict[str, str]:
    """What was typed of the decoding options; blank is not given, as in a form."""
    typed = {name: (getattr(args, name) or "").strip() for name in DECODING_OPTIONS}
    return {name: value for name, value in typed.items() if value}
