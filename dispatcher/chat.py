"""A conversation on a terminal, or through a pipe: one line, one turn.

Keeps the messages, and forgets the oldest when they outgrow the model's context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmdispatcher import suggest
from llmdispatcher.models.errors import (
    AllVendorsFailed,
    ContextOverflow,
    DispatcherError,
    RequestError,
)
from llmdispatcher.models.message import Message, assistant, system, user

if TYPE_CHECKING:
    from llmdispatcher.models.reply import Reply
    from llmdispatcher.session import Session

PROMPT = "> "
INTERRUPTED = 130
SUGGESTED = 3
"""So many questions to ask the embedded model are named by /help."""

HELP = """\
/help   show this
/reset  forget the conversation
/exit   leave, as do /quit and Ctrl-D
Ctrl-C stops an answer. A line that begins with a space is never a command.
"""


class Chat:
    """Reads lines, answers them, and remembers both."""

    def __init__(self, session: Session, instructions: str | None) -> None:
        self._session = session
        self._terminal = session.terminal
        # Through a pipe nobody is there to react: then errors and Ctrl-C end the program.
        self._live = session.terminal.reads_tty
        self._edits = self._live and session.terminal.writes_tty
        self._system = [] if instructions is None else [system(instructions)]
        self._turns: list[Message] = []

    def run(self) -> int:
        """Hold the conversation until its end, and return the exit code."""
        typed = _line_editor() if self._edits else str
        interrupts = 0
        while interrupts < 2:  # noqa: PLR2004 - the second of two in a row
            try:
                line = self._read()
                interrupts = 0
                if line is None or not self._do(line):
                    return 0
            except KeyboardInterrupt:
                if not self._live:
                    raise
                interrupts = 0 if typed() else interrupts + 1  # the first clears the line
                self._terminal.tell("\n")
                if interrupts == 1:
                    self._terminal.note("Ctrl-D or /exit to leave")
            except RequestError as error:  # of reading; those of answering never get here
                if not self._live:
                    raise
                self._terminal.error(error)
        return INTERRUPTED

    def _read(self) -> str | None:
        """Read a line; None at the end. Raises RequestError if it is not text."""
        if not self._edits:
            if self._live and self._terminal.notes_tty:
                self._terminal.tell(PROMPT)
            return self._terminal.read_line()
        try:
            return input(PROMPT)
        except EOFError:
            self._terminal.tell("\n")
            return None
        except UnicodeDecodeError:
            raise RequestError("that line is not text in the terminal's encoding") from None

    def _do(self, line: str) -> bool:
        """Obey a command or answer a question; False ends the conversation."""
        if not line.startswith("/"):
            if line.strip():
                self._ask(line.strip())
            return True
        match line.split(maxsplit=1)[0]:
            case "/exit" | "/quit":
                return False
            case "/reset":
                self._turns.clear()
                self._terminal.note("the conversation is forgotten")
            case "/help":
                self._terminal.tell(HELP)
                if self._session.is_demo:
                    questions = suggest.listed(suggest.some(len(self._turns) + 1, SUGGESTED))
                    self._terminal.tell(f"Questions for the embedded model: {questions}\n")
            case unknown:
                self._terminal.note(f"there is no command {unknown}; /help lists them")
        return True

    def _ask(self, question: str) -> None:
        """Answer a question; what was said of an answer that is stopped is remembered."""
        self._turns.append(user(question))
        try:
            reply = self._answer()
        except KeyboardInterrupt:
            if not self._live:
                raise
            self._terminal.tell("\n")
            self._terminal.note("stopped")
            self._close_turn(self._session.partial)
        except DispatcherError as error:
            if not self._live:
                raise
            self._turns.pop()
            self._terminal.error(error)
        else:
            self._close_turn(reply.text)
            if self._session.is_full(reply):
                self._forget(keep=2)

    def _answer(self) -> Reply:
        """Answer what was said until now, forgetting as much of it as must be."""
        while True:
            try:
                return self._session.show([*self._system, *self._turns])
            except (ContextOverflow, AllVendorsFailed) as error:
                if not (_overflows(error) and self._forget(keep=1)):
                    raise

    def _close_turn(self, said: str) -> None:
        if said:
            self._turns.append(assistant(said))
        else:
            self._turns.pop()

    def _forget(self, *, keep: int) -> bool:
        """Drop the older half of the turns before the last ``keep`` messages; False if none is.

        Half, and not one, since a context that is nearly full cuts the answers short.
        """
        turns = (len(self._turns) - keep) // 2
        if turns < 1:
            return False
        dropped = (turns + 1) // 2
        del self._turns[: 2 * dropped]
        what = "the oldest turn" if dropped == 1 else f"the {dropped} oldest turns"
        self._terminal.note(f"the conversation outgrew the model's context: forgot {what}")
        return True


def _line_editor() -> Callable[[], str]:
    """Give ``input`` line editing and a history in memory; return what tells the line so far."""
    try:
        import readline  # noqa: PLC0415 - only on a terminal, and Python can be built without it
    except ImportError:
        return str
    return readline.get_line_buffer


def _overflows(error: DispatcherError) -> bool:
    if isinstance(error, AllVendorsFailed):
        return any(isinstance(each, ContextOverflow) for each in error.exceptions)
    return isinstance(error, ContextOverflow)
