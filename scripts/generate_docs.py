"""Writes the pages of the documentation that are made from the source: ``docs/protocol.md`` and ``docs/states.md``.

    python scripts/generate_docs.py            # write them
    python scripts/generate_docs.py --check    # say whether they are up to date; exit code 1 if not

The protocol comes from the messages' classes (fields, comments, docstrings); the states from the tables of the cores.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from treadle.comm import framing, handshake, interface
from treadle.messages import base, client_scheduler, nanny, worker_scheduler, worker_worker
from treadle.scheduler.transitions import records as scheduler_records
from treadle.scheduler.transitions import table as scheduler_table
from treadle.worker.transitions import records as worker_records
from treadle.worker.transitions import table as worker_table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = "<!-- Made by scripts/generate_docs.py from the source; a change here is lost. -->"

#: (module, [(heading, union)])
CONVERSATIONS: list[tuple[ModuleType, list[tuple[str, Any]]]] = [
    (
        client_scheduler,
        [
            ("From the client to the scheduler", client_scheduler.ClientToScheduler),
            ("From the scheduler to the client", client_scheduler.SchedulerToClient),
        ],
    ),
    (
        worker_scheduler,
        [
            ("From the scheduler to the worker", worker_scheduler.SchedulerToWorker),
            ("From the worker to the scheduler", worker_scheduler.WorkerToScheduler),
        ],
    ),
    (
        worker_worker,
        [
            ("From the one who asks (a worker or a client)", worker_worker.PeerToWorker),
            ("From the worker who is asked", worker_worker.WorkerToPeer),
        ],
    ),
    (
        nanny,
        [("From the scheduler to the nanny", nanny.SchedulerToNanny), ("From the nanny to the scheduler", nanny.NannyToScheduler)],
    ),
]


def source_of(module: ModuleType) -> str:
    """Its text in this tree, also when what is loaded is compiled."""
    return Path(ROOT, "src", *module.__name__.split(".")).with_suffix(".py").read_text(encoding="utf-8")


def attribute_comments(module: ModuleType) -> dict[tuple[str, str], str]:
    """(class or "", name) -> the text of its ``#:`` comment, for every annotated name of the module and its classes."""
    source = source_of(module)
    lines = source.splitlines()
    found: dict[tuple[str, str], str] = {}

    def visit(body: Sequence[ast.stmt], owner: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words: list[str] = []
                line = node.lineno - 2
                while line >= 0 and lines[line].strip().startswith("#:"):
                    words.insert(0, lines[line].strip()[2:].strip())
                    line -= 1
                if words:
                    found[owner, node.target.id] = " ".join(words)

    visit(ast.parse(source).body, "")
    return found


def documentation(thing: Any) -> str:
    """The docstring, as Markdown."""
    text = ast.get_docstring(ast.parse(source_of(thing))) if isinstance(thing, ModuleType) else inspect.getdoc(thing)
    return markdown(text or "")


def markdown(text: str) -> str:
    """reStructuredText as it is used in docstrings: ``code``, and literal blocks that follow ``::`` or are indented."""
    result: list[str] = []
    literal: list[str] = []
    for line in [*text.splitlines(), None]:
        if line is not None and (line.startswith("    ") or (literal and not line.strip())):
            literal.append(line)
            continue
        if literal:
            block = textwrap.dedent("\n".join(literal)).strip("\n")
            result += ["~~~text", block, "~~~", ""]
            literal = []
        if line is not None:
            result.append(line.replace("::", ":") if line.endswith("::") else line)
    return "\n".join(result).replace("``", "`").strip()


def type_text(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "none" if annotation is type(None) else annotation.__name__
    text = str(annotation)
    for name in ("Id", "Count", "Rank", "Finite", "Amount", "Share"):
        text = text.replace(str(getattr(base, name)), name)
    text = text.replace("typing.", "").replace("treadle.messages.base.", "")
    # Newer versions of Python write it so by themselves.
    return re.sub(r"Optional\[(\w+)\]", r"\1 | None", text)


def field_table(message: type, comments: dict[tuple[str, str], str]) -> list[str]:
    """A row a field, in the order in which they travel."""
    fields = msgspec.structs.fields(message)
    if not fields:
        return ["No fields.", ""]
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for field in fields:
        default = "" if field.default is msgspec.NODEFAULT else f"`{field.default!r}`"
        comment = next((comments[owner.__name__, field.name] for owner in message.__mro__ if (owner.__name__, field.name) in comments), "")
        kind = type_text(field.type).replace("|", "\\|")
        rows.append(f"| `{field.name}` | `{kind}` | {default} | {markdown(comment)} |")
    return [*rows, ""]


def message_section(message: type, level: str, comments: dict[tuple[str, str], str]) -> list[str]:
    tag = message.__struct_config__.tag  # type: ignore[attr-defined]
    title = f"{level} {message.__name__}" + (f" (kind {tag})" if isinstance(tag, int) else "")
    return [title, "", documentation(message), "", *field_table(message, comments)]


def protocol_page() -> str:
    shared = attribute_comments(base)
    lines = [
        GENERATED,
        "",
        "# The protocol",
        "",
        "Parties hold one ordered, authenticated stream each: a client and the scheduler, a worker and the scheduler, a nanny and the",
        "scheduler, and, for bulk data, a worker or a client and a worker. This page follows the bytes from the outside to the inside.",
        "",
        f"Version of the protocol: {handshake.PROTOCOL_VERSION}.",
        "",
        "## The handshake",
        "",
        documentation(handshake),
        "",
        f"Sizes in bytes: Hello and Challenge {handshake.GREETING_BYTES}, "
        f"Proof {handshake.PROOF_BYTES}, Verdict {handshake.VERDICT_BYTES}.",
        "",
        "Roles: " + ", ".join(f"{role.value} {role.name.lower()}" for role in interface.Role) + ".",
        "",
        "Status: " + ", ".join(f"{status.value} {status.name.lower().replace('_', ' ')}" for status in handshake.Status) + ".",
        "",
        "## Frames",
        "",
        documentation(framing),
        "",
        "Caps, checked before memory is taken:",
        "",
        "| limit | default |",
        "|---|---|",
    ]
    limits = interface.CommLimits()
    lines += [f"| `{name}` | {value:,} |" for name, value in vars(limits).items()]
    lines += [
        "",
        "## Messages",
        "",
        "The body of a frame is a list of messages in MessagePack; each message is an array whose first element is its kind,",
        "followed by its fields in order. Trailing fields may be left out when they have a default. The buffers of a frame",
        "belong to its messages, in order.",
        "",
        "Numbers have bounds: `Id`, `Count` and `Rank` are whole numbers, `Finite`, `Amount` and `Share` are finite; all but `Rank` and",
        "`Finite` are not negative. A frame with any other number is refused as a whole, before anything of it is done, and its sender is",
        "dropped.",
        "",
        "### Shared parts",
        "",
    ]
    for part in (base.TaskError, base.TaskOptions, base.Peer, base.WorkerIdentity, base.Holders, base.Block, worker_scheduler.TaskErred):
        lines += message_section(part, "####", {**shared, **attribute_comments(worker_scheduler)})
    for module, directions in CONVERSATIONS:
        first, _, rest = documentation(module).partition("\n")
        lines += [f"## {first.rstrip('.')}", ""]
        if rest.strip():
            lines += [rest.strip(), ""]
        comments = {**shared, **attribute_comments(module)}
        for heading, union in directions:
            lines += [f"### {heading}", ""]
            for message in sorted(typing.get_args(union), key=lambda message: message.__struct_config__.tag):
                lines += message_section(message, "####", comments)
    return tidy(lines)


def diagram(edges: Sequence[tuple[str, str]], first: str, last: str) -> list[str]:
    """A mermaid state diagram; an edge there and back is drawn once, with two heads."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {identifier(first)}"]
    for state in dict.fromkeys(state for edge in edges for state in edge):
        if identifier(state) != state:
            lines.append(f"    {identifier(state)}: {state}")
    lines += [f"    {identifier(start)} --> {identifier(finish)}" for start, finish in edges]
    return [*lines, f"    {identifier(last)} --> [*]", "```", ""]


def identifier(state: str) -> str:
    return state.replace("-", "_")


def states_page() -> str:
    lines = [
        GENERATED,
        "",
        "# The states of a task",
        "",
        "Two machines keep a record of a task: the scheduler's, which decides where it runs and how long its result is kept, and the",
        "one of each worker that runs it or holds a copy of its result. Both check every change against these tables.",
        "",
        "## On the scheduler",
        "",
        documentation(scheduler_table),
        "",
    ]
    edges = scheduler_table.readable()
    lines += diagram([(start, finish) for start, finish, _ in edges], "released", "forgotten")
    lines += ["| from | to | when |", "|---|---|---|"]
    lines += [f"| {start} | {finish} | {reason} |" for start, finish, reason in edges]
    lines += ["", *state_meanings(scheduler_records), "## On a worker", "", documentation(worker_table), ""]
    names = worker_records.STATE_NAMES
    lines += state_meanings(worker_records)
    lines += ["A row is what a task is, a column what it may become.", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for start, finishes in worker_table.LEGAL.items():
        cells = ["x" if finish in finishes else "" for finish in range(len(names))]
        lines.append(f"| **{names[start]}** | " + " | ".join(cells) + " |")
    lines += ["", "The common way of a task that is assigned, and of a value that is needed from elsewhere:", ""]
    usual = [
        ("new", "waiting"),
        ("waiting", "constrained"),
        ("waiting", "ready"),
        ("constrained", "ready"),
        ("ready", "executing"),
        ("ready", "memory"),
        ("executing", "memory"),
        ("executing", "long-running"),
        ("executing", "error"),
        ("ready", "error"),
        ("long-running", "memory"),
        ("new", "fetch"),
        ("fetch", "flight"),
        ("flight", "memory"),
        ("flight", "fetch"),
        ("fetch", "missing"),
        ("missing", "fetch"),
        ("memory", "forgotten"),
        ("error", "forgotten"),
    ]
    for start, finish in usual:
        if names.index(finish) not in worker_table.LEGAL[names.index(start)]:
            raise ValueError(f"the page says that a worker's task goes from {start} to {finish}; the table forbids it")
    lines += diagram(usual, "new", "forgotten")
    return tidy(lines)


def state_meanings(records: Any) -> list[str]:
    """A row a state that has a comment at its number."""
    comments = attribute_comments(records)
    rows = []
    for number, name in enumerate(records.STATE_NAMES):
        comment = comments.get(("", name.upper().replace("-", "_")))
        if comment and getattr(records, name.upper().replace("-", "_")) == number:
            rows.append(f"| {name} | {markdown(comment)} |")
    return ["| state | meaning |", "|---|---|", *rows, ""] if rows else []


def tidy(lines: Sequence[str]) -> str:
    """One blank line where there were several; a newline at the end."""
    result: list[str] = []
    for line in "\n".join(lines).split("\n"):
        if line.strip() or (result and result[-1]):
            result.append(line.rstrip())
    return "\n".join(result).strip() + "\n"


PAGES = {"protocol.md": protocol_page, "states.md": states_page}


def outdated() -> list[str]:
    """Names of the pages that are not what the source says."""
    return [name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != page()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the pages of the documentation that are made from the source.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is not up to date")
    options = parser.parse_args()
    if options.check:
        stale = outdated()
        if stale:
            sys.exit(f"not up to date: {', '.join(stale)}; run python scripts/generate_docs.py")
        return
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
