"""The command line: ``llmdispatcher ask``, ``chat``, ``plan``, ``usage``, ``doctor`` and so on.

Owns the options, the table of commands and the exit codes. A command is a function that takes the
options, the terminal and the vendors to ask; errors that it raises become one line on stderr.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import attrs

from llmdispatcher import (
    asking,
    config_view,
    expenses,
    explain_view,
    models_view,
    opening,
    providers_view,
    remote,
    suggest,
    usage_view,
)
from llmdispatcher.interrupt import audible
from llmdispatcher.models.errors import ConfigError, DispatcherError, Refused, RequestError
from llmdispatcher.models.request import Options
from llmdispatcher.terminal import OutputFailed, Terminal, abandon, one_line

if TYPE_CHECKING:
    from llmdispatcher.session import Session
    from llmdispatcher.vendors.contract import VendorSpec

FAILED, WRONG, REFUSED, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 130, 141

EXIT_CODES = """\
exit codes:
  0    done
  1    every vendor that was tried failed, stdout cannot be written to, or doctor found a problem
  2    the command line or the request is wrong
  3    refused: a limit of ours, or no model can do what is asked
  130  interrupted with Ctrl-C
  141  the reader of stdout went away
"""


@attrs.frozen
class Command:
    """A row of the table of commands."""

    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Terminal, Sequence[VendorSpec]], int]


def main(argv: Sequence[str] | None = None, *, vendors: Sequence[VendorSpec] = ()) -> int:
    """Run a command line and return its exit code.

    ``vendors`` answer instead of those that the options name.
    """
    terminal = Terminal()
    try:
        args = _parser().parse_args(argv)
        command = COMMANDS.get(args.command)
        if command is None:
            _parser().print_help(sys.stderr)
            return WRONG
        with audible():
            return command.run(args, terminal, vendors)
    except (
        SystemExit,
        KeyboardInterrupt,
        BrokenPipeError,
        OutputFailed,
        DispatcherError,
    ) as end:
        return _told(end, terminal)


def _told(end: BaseException, terminal: Terminal) -> int:
    """Tell how a command ended early, and return the exit code."""
    match end:
        case SystemExit():  # argparse's way to end after --help and after a mistake
            return _flushed(end.code if isinstance(end.code, int) else WRONG)
        case KeyboardInterrupt():
            terminal.tell("\n" if terminal.notes_tty else "")
            return INTERRUPTED
        case BrokenPipeError():
            abandon(sys.stdout, sys.stderr)
            return BROKEN_PIPE
        case OutputFailed():
            abandon(sys.stdout)
        case ConfigError() if len(end.problems) > 1:  # a line for each
            for problem in end.problems:
                terminal.error(ConfigError([problem]))
            return WRONG
    terminal.error(end)
    return exit_code(end)


def _flushed(code: int) -> int:
    """Write out what argparse left in the buffer, before Python does it less quietly."""
    out: TextIO | None = sys.stdout
    try:
        if out is not None:
            out.flush()
    except OSError:
        abandon(out)
        return BROKEN_PIPE
    return code


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error, by its class."""
    if isinstance(error, RequestError | ConfigError):
        return WRONG
    return REFUSED if isinstance(error, Refused) else FAILED


# -- commands ----------------------------------------------------------------------------------


def ask(args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]) -> int:
    """Answer one question."""
    prompt = asking.prompt(args, asking.question(args, terminal))
    with _session(args, terminal, vendors) as session:
        if args.json:
            terminal.write(asking.as_json(session.fetch(prompt)) + "\n")
        else:
            session.show(prompt)
        if session.is_demo:
            suggest.note(terminal, "ask", int(time.time()))
            opening.note_keys(terminal)
    return 0


def chat(args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]) -> int:
    """Hold a conversation."""
    from llmdispatcher.chat import Chat  # noqa: PLC0415 - the other commands do without

    with _session(args, terminal, vendors) as session:
        if session.is_demo:
            suggest.note(terminal, "chat", int(time.time()))
            opening.note_keys(terminal)
        if terminal.reads_tty:
            terminal.note("/help lists the commands, Ctrl-D leaves")
        return Chat(session, args.system).run()


def explain(args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]) -> int:
    """Say who would be asked."""
    from llmdispatcher.facade import Dispatcher  # noqa: PLC0415 - as of ask

    prompt = asking.prompt(args, asking.question(args, terminal))
    opener = None if vendors else opening.opener(args, terminal, None)
    is_named = args.model is not None or args.vendor is not None
    specs = vendors or ([_vendor(args)] if is_named else ())
    made = Dispatcher(*specs) if opener is None else opener(lambda _: None)
    with made as d:
        told = d.explain(prompt, **explain_view.options(args))
    shown = explain_view.text(told, is_tty=terminal.writes_tty)
    terminal.write(explain_view.as_json(told) if args.json else shown)
    return 0 if told.candidates else REFUSED


def plan(args: argparse.Namespace, terminal: Terminal, _: Sequence[VendorSpec]) -> int:
    """Show how a model would be loaded."""
    from llmdispatcher import plan_view  # noqa: PLC0415 - the other commands do without

    terminal.write(plan_view.text(_vendor(args)))
    return 0


def doctor(args: argparse.Namespace, terminal: Terminal, _: Sequence[VendorSpec]) -> int:
    """Look what is installed and whether it works."""
    from llmdispatcher import doctor as examination  # noqa: PLC0415 - the other commands do without
    from llmdispatcher import doctor_view  # noqa: PLC0415 - as above

    diagnosis = examination.examine(run=args.run)
    view = doctor_view.as_json if args.json else doctor_view.text
    terminal.write(view(diagnosis))
    return FAILED if diagnosis.problems else 0


def _session(
    args: argparse.Namespace, terminal: Terminal, vendors: Sequence[VendorSpec]
) -> Session:
    from llmdispatcher.session import Session  # noqa: PLC0415 - not before the options are right

    options: Options = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "seed": args.seed,
        "stop": args.stop,
        "max_cost_usd": args.max_cost,
    }
    ledger = expenses.ledger(args, terminal)
    opener = None if vendors else opening.opener(args, terminal, ledger)
    specs = vendors or ([_vendor(args)] if opener is None else ())
    if opener is not None and args.model is not None:
        options["model"] = args.model
    return Session(terminal, specs, options, ledger=ledger, verbose=args.verbose, opener=opener)


def _vendor(args: argparse.Namespace) -> VendorSpec:
    """Make the vendor that the options name: a file, or else the embedded model."""
    from llmdispatcher.vendors import discovery  # noqa: PLC0415 - importlib.metadata is slow

    if getattr(args, "vendor", None) is not None:
        return remote.vendor(args, _LIMITS)
    limits = {field: getattr(args, field, None) for field in (*_LIMITS, *_POOL, "cache_type")}
    given = {name: value for name, value in limits.items() if value is not None}
    if args.model == "" or "://" in (args.model or ""):
        raise RequestError(f"--model takes a file, not {args.model!r}: download the model first")
    if args.model is not None:
        from llmdispatcher.named import model_file  # noqa: PLC0415 - few name a model

        file = model_file(args.model)
        return discovery.find("llamacpp")(file.path, model_name=file.name, **given)
    demo: Any = discovery.find("embedded")()
    if args.command == "ask":  # one question of a model that is known to be well: it begins sooner
        given["isolation"] = "thread"
    return cast("VendorSpec", attrs.evolve(demo, **given))


# -- options -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as all other errors are."""

    def error(self, message: str) -> NoReturn:
        way_out = f"see {self.prog} --help"
        if "invalid choice" in message:
            way_out = 'to ask a question: llmdispatcher ask "…"'
        sys.stderr.write(f"llmdispatcher: error: {one_line(message)}; {way_out}\n")
        sys.exit(WRONG)


def _parser() -> argparse.ArgumentParser:
    from llmdispatcher import __version__  # noqa: PLC0415 - the package is whole by now

    parser = _Parser(
        prog="llmdispatcher",
        description="Ask a language model: a GGUF file of yours, or the small embedded one.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llmdispatcher {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND [-h]", title="commands")
    for name, command in COMMANDS.items():
        command.add_options(
            commands.add_parser(
                name,
                help=command.summary,
                description=command.summary,
                epilog=EXIT_CODES,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )
    return parser


def _ask_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompt",
        nargs="*",
        metavar="PROMPT",
        help="the question; piped stdin is appended to it, and - or nothing reads stdin alone;"
        " put -- in front of one that begins with a dash",
    )
    _common_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--raw", action="store_true", help="continue the prompt as it is, without a chat template"
    )


def _common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="tell speed and cost")
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")
    model = _model_group(parser)
    remote.add_options(model)
    _add_limits(model, _LIMITS)
    drawing = parser.add_argument_group("the answer")
    drawing.add_argument("--max-tokens", type=int, metavar="N", help="the longest answer")
    drawing.add_argument(
        "--temperature", type=float, metavar="T", help="0 always takes the likeliest token"
    )
    drawing.add_argument("--top-p", type=float, metavar="P", help="the likeliest that make up P")
    drawing.add_argument("--top-k", type=int, metavar="N", help="the N likeliest tokens; 0: all")
    drawing.add_argument("--seed", type=int, metavar="N", help="repeat an answer")
    drawing.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end there; may be repeated"
    )
    expenses.add_options(parser)
    opening.add_options(parser)


def _explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="as of ask; nobody is asked")
    parser.add_argument("--system", metavar="TEXT", help="instructions for the model")
    parser.add_argument("--raw", action="store_true", help="as it is, without a chat template")
    model = _model_group(parser)
    remote.add_options(model)
    _add_limits(model, _LIMITS)
    explain_view.add_options(parser)
    opening.add_options(parser)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    model = _model_group(parser)
    _add_limits(model, _LIMITS | _POOL)
    model.add_argument(
        "--cache-type",
        metavar="TYPE",
        help="how the cache is stored: f32, f16 (the default), q8_0 or q4_0",
    )


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--run", action="store_true", help="have the embedded model answer a question, too"
    )


def _model_group(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    model = parser.add_argument_group("the model")
    model.add_argument(
        "-m",
        "--model",
        metavar="FILE.gguf",
        help="a file, or the name of a model that Ollama, LM Studio, Hugging Face or llama.cpp has"
        " on this machine; default: the embedded one",
    )
    return model


def _add_limits(group: argparse._ArgumentGroup, limits: Mapping[str, tuple[str, str]]) -> None:
    for field, (option, what) in limits.items():
        group.add_argument(option, dest=field, type=int, metavar="N", help=what)


_LIMITS = {
    "context_tokens": ("--context", "the longest conversation, in tokens"),
    "max_threads": ("--threads", "at most N threads"),
    "max_gpu_layers": ("--gpu-layers", "at most N layers on a GPU"),
    "max_memory_mb": ("--memory-mb", "at most N MiB of memory"),
}
_POOL = {"max_parallel": ("--parallel", "at most N conversations at once")}
"""Fields of a vendor: their options, and what they mean."""

COMMANDS = {
    "ask": Command("answer one question", _ask_options, ask),
    "chat": Command("hold a conversation", _common_options, chat),
    "explain": Command("say who would be asked, and why", _explain_options, explain),
    "plan": Command("say how a model would be loaded, and what that takes", _plan_options, plan),
    "models": Command("list the models that could be used", *models_view.MODELS),
    "providers": Command(
        "say who is there to ask, and who would answer", *providers_view.PROVIDERS
    ),
    "config": Command("write, check or show the configuration", *config_view.CONFIG),
    "usage": Command("show what was used and what it cost", *usage_view.USAGE),
    "export": Command("write the ledger for other programs", *usage_view.EXPORT),
    "doctor": Command(
        "look what is installed, whether it works, and how to mend it", _doctor_options, doctor
    ),
}
