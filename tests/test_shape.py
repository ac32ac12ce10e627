"""The shape of the package: what it exports, how its layers point, what importing it costs."""

from __future__ import annotations

import ast
import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from fresh import in_a_new_process

import llmdispatcher
from llmdispatcher.models import errors

PACKAGE = Path(llmdispatcher.__file__).parent
LAYERS = {"models": 0, "vendors": 1}
"""Height of the layers; everything else is the dispatcher, above both."""

HEAVY = {
    "PIL",
    "asyncio",
    "cattrs",
    "concurrent.futures",
    "httpx2",
    "importlib.metadata",
    "jinja2",
    "llama_cpp",
    "llguidance",
    "numpy",
    "psutil",
    "pynvml",
    "rich",
    "sqlite3",
    "yaml",
}

EXPORTS = """
AllVendorsFailed AsyncDispatcher AsyncStream AttemptEnded AttemptStarted EngineDied Event Fallback
LoadProgress ModelUnloaded
AuthRejected BadReply BadRequest BreakerOpen
BudgetExceeded CallDelta Cancelled Capability Choice
ConfigError ContentRefused ContextOverflow CorruptModel
Deadlines Decision Delta Dispatcher DispatcherError EmbedRequest Embeddings
EngineCrashed ExecutableNotFound FREE Figures
FinishReason Image InvalidGrammar LimitReached LlamaCpp Message ModelCard ModelFileMissing
ModelNotFound ModelTooLarge NoCandidate OfflineRefused OutOfMemory Overloaded Price QuotaExhausted
RateLimited Refused Reply Request RequestError RerankRequest Reranked
ResponseFormat Sampling Saved Scripted StateUnusable Stats
Stream StreamInterrupted Text TimedOut TokenLogprob ToolCall ToolSpec Unreachable Unsupported
UnsupportedArchitecture Usage Vendor VendorError __version__ assistant system tool user
Anthropic Azure DeepSeek Gemini Groq LMStudio Lightning LiteLLM LlamaServer LocalAI Mistral Ollama
OpenAI OpenAICompatible OpenRouter Together VLLM
HttpVendor Keepsake Secret TokenCount
BudgetAlert Cache CacheTrouble Ledger LedgerTrouble LedgerUnusable SpendingCap fingerprint
BreakerMoved BreakerPolicy Limits Restarted Retried RetryPolicy
Plan Reading Routing Strategy Task TaskRule
Ensemble Hedge NoGoodAnswer Parallel
ConfigRefused ConfigReloaded
Cascade Chain Step
"""


def test_the_public_names_are_these() -> None:
    """Adding or removing a public name is a decision, taken here."""
    assert sorted(llmdispatcher.__all__) == sorted(EXPORTS.split())
    for name in llmdispatcher.__all__:
        assert getattr(llmdispatcher, name) is not None
    assert dir(llmdispatcher) == sorted(llmdispatcher.__all__)


def test_every_error_is_public() -> None:
    """Whatever may be raised can be caught by name from the top of the package."""
    classes = {n for n, kind in vars(errors).items() if isinstance(kind, type)} - {
        "VendorFacts",
        "Problem",
    }

    public = {n for n in classes if issubclass(getattr(errors, n), errors.DispatcherError)}

    assert public <= set(llmdispatcher.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy vendors do not make every name exist."""
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = llmdispatcher.Nothing


def test_importing_loads_nothing_heavy() -> None:
    """Engines, HTTP clients and event loops load on first use, never at import."""
    code = "import llmdispatcher, sys, json; print(json.dumps(sorted(sys.modules)))"

    loaded = set(json.loads(in_a_new_process(code)))

    assert not loaded & HEAVY
    ours = {name for name in loaded if name.startswith("llmdispatcher.vendors.")}
    assert ours == {f"llmdispatcher.vendors.{name}" for name in ("contract", "mailbox")}


def test_naming_a_local_vendor_loads_no_engine() -> None:
    """Describing a model, and registering it, reads its header but does not load llama.cpp."""
    code = (
        "import sys; from llmdispatcher import Dispatcher, LlamaCpp;"
        "d = Dispatcher(LlamaCpp('missing.gguf')); d.vendors(); d.close();"
        "print('llama_cpp' in sys.modules)"
    )

    assert in_a_new_process(code).strip() == "False"


def test_layers_go_one_way() -> None:
    """Models imports neither vendors nor the dispatcher, and vendors not the dispatcher."""
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        height = LAYERS.get(parts[0], 2)
        for module in imports(path):
            names = module.split(".")
            if names[0] != "llmdispatcher":
                continue
            seen += 1
            other = LAYERS.get(names[1], 2) if len(names) > 1 else 2
            assert other <= height, f"{path} imports {module}, which is above it"
    assert seen > 50


class Run(ast.NodeTransformer):
    """Leaves out what is imported for its types alone."""

    def visit_If(self, node: ast.If) -> ast.If | None:
        """Leave out the block that never runs."""
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


def imports(path: Path, *, run: bool = False) -> list[str]:
    """List the modules that a file imports, anywhere in it, or those that it does when it runs."""
    found: list[str] = []
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(Run().visit(tree) if run else tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def test_few_modules_touch_each_native_library() -> None:
    """What may end the process, or may be missing, is imported in one place."""
    owners = {
        "llama_cpp": {"library.py"},
        "httpx2": {"clients.py"},
        "httpcore2": {"sockets.py"},
        "llguidance": {"constraint.py"},
        "PIL": {"pixels.py"},
        "psutil": {"probe.py"},
        "subprocess": {"spawn.py"},
    }
    used = {
        path: {module.split(".")[0] for module in imports(path, run=True)}
        for path in PACKAGE.rglob("*.py")
    }
    for library, allowed in owners.items():
        assert {path.name for path, found in used.items() if library in found} == allowed


def test_no_second_copy_of_the_package() -> None:
    """The folders of the checkout are never imported under their own names."""
    assert not {"models", "vendors", "dispatcher"} & set(sys.modules)


def test_files_and_functions_stay_small() -> None:
    """A file has at most 400 lines and a function at most 50, without its docstring."""
    lengths = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{path} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = function_length(node)
                assert length <= 50, f"{path}: {node.name} has {length} lines"
                lengths.append(length)
    assert sum(lengths) / len(lengths) <= 12


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function, without its docstring."""
    length = (node.end_lineno or 0) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        length -= (first.end_lineno or 0) - first.lineno + 1
    return length


def test_broad_excepts_are_counted() -> None:
    """Everything is caught in these places only, each with its reason beside it.

    The drivers pass what they catch into the flow. The others stand between our code and foreign
    code: a listener, a vendor, a request that runs a stranger's template, what a model says, a job
    for the engine.
    """
    broad = [
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in BROAD))
    ]

    assert sorted(broad) == [
        "drive.py",
        "drive.py",
        "engine.py",
        "engine.py",
        "engine.py",
        "host.py",
        "inbox.py",
        "landlord.py",
        "listener.py",
        "thread.py",
        "trial.py",
    ]


BROAD = {"Exception", "BaseException"}


def test_the_wheel_is_small_and_whole() -> None:
    """The installed package brings its types and its model, and weighs at most 8 MB."""
    names = {path.name for path in PACKAGE.rglob("*")}
    size = sum(path.stat().st_size for path in PACKAGE.rglob("*") if path.suffix != ".pyc")

    assert {"py.typed", "demo.gguf"} <= names
    assert not any("training" in path.parts for path in PACKAGE.rglob("*"))
    assert size <= 8 * 2**20


def test_one_version_everywhere() -> None:
    """The package, its metadata and the changelog agree on the version."""
    text = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")

    assert metadata.version("llmdispatcher") == llmdispatcher.__version__
    assert f"\n## [{llmdispatcher.__version__}] - " in text
