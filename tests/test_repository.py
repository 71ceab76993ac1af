"""Guards of the repository: import directions, names in documents, documentation and tests of every error."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

import cdc.sandbox  # so that every error class is known
from cdc import crash
from cdc.cli import app
from cdc.errors import CdcError
from cdc.mysql import preflight, session
from cdc.mysql.preflight import mariadb, tables
from cdc.mysql.preflight.checks import Check
from cdc.ops import summary

ROOT = Path(__file__).parents[1]
LONGEST = {".py": 400, ".pyx": 700, ".pxi": 700}
"""Lines. When a file grows towards it, a concept is missing."""


@cache
def tracked() -> list[Path]:
    """The files that git tracks, or all files of a folder without git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        return [path for path in ROOT.rglob("*") if path.is_file() and not {".venv", "build"} & set(path.relative_to(ROOT).parts)]
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# imports


def modules(package: str) -> dict[str, Path]:
    """The package's modules by their full names."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """The full names of our own modules that a file imports, anywhere in it."""
    known = modules("cdc") | modules("mapstore")
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative import"
            names |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("cdc", "mapstore")}


BOTTOM = {"config", "crash", "errors", "model"}
SEAMS = {"engine.interfaces", "engine.continuity", "engine.verify"}
"""All that a source or a target knows of the engine."""

MAY_IMPORT = {
    "errors": set(),
    "crash": set(),
    "model": set(),
    "config": {"errors", "model"},
    "formats": {"errors", "model"},
    "engine": {*BOTTOM, "mapstore"},
    "mysql": {*BOTTOM, *SEAMS},
    "targets": {*BOTTOM, *SEAMS, "formats", "mapstore"},
    "sandbox": {"errors", "ops.console"},
    "ops": {*BOTTOM, "engine", "formats", "mysql", "targets"},
    "ops.console": set(),
    "api": {*BOTTOM, "engine", "formats", "mysql", "ops", "targets"},
    "compare": {*BOTTOM, "api", "engine", "formats", "mysql", "ops", "targets", "mapstore"},
    "demo": {*BOTTOM, "api", "compare", "engine", "formats", "mysql", "ops", "sandbox", "targets"},
    "cli": {*BOTTOM, "api", "compare", "demo", "engine", "formats", "mysql", "ops", "sandbox", "targets"},
    "fleet": {*BOTTOM, "api", "engine", "formats", "ops", "targets"},
}
"""Which rooms of `cdc` a room may import from, itself aside; a module with a line of its own keeps to that. What is not named here has no
room yet: it gets a line before it gets code."""


def within(name: str, room: str) -> bool:
    """Whether a module lies in a room; rooms of the package `cdc` are written without it."""
    name = name.removeprefix("cdc.")
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> str:
    """The most precise line of the table for a module."""
    return max((room for room in MAY_IMPORT if within(name, room)), key=len)


@pytest.mark.parametrize("name", [name for name in modules("cdc") if name not in ("cdc", "cdc.__main__")])
def test_imports_follow_the_table(name: str) -> None:
    """So that the merge and the values can be read, tested and used without a server or a target."""
    room = room_of(name)
    wrong = {each for each in imports(modules("cdc")[name]) if not any(within(each, allowed) for allowed in {room, *MAY_IMPORT[room]})}
    assert not wrong, f"{name} is in {room}"


def test_targets_do_not_import_each_other() -> None:
    """A target is one folder, or one file; shared modules lie beside them, and import no target."""
    kinds = {"mapstore", "sql"}
    for name, path in modules("cdc").items():
        if within(name, "targets"):
            own = {kind for kind in kinds if within(name, f"targets.{kind}")}
            known = {kind for kind in kinds for each in imports(path) if within(each, f"targets.{kind}")}
            assert known <= own or name == "cdc.targets", name


def test_targets_are_opened_through_the_registry() -> None:
    """`open_target` and `open_reader`: all other code works with every target."""
    users = {name for name, path in modules("cdc").items() if any(within(each, "targets.mapstore") for each in imports(path))}
    assert {name for name in users if not within(name, "targets.mapstore")} == {"cdc.targets"}


def test_map_store_is_imported_only_where_allowed() -> None:
    """The map is one target, the hand-over's set of keys and the subject of comparisons."""
    users = {name for name, path in modules("cdc").items() if any(within(each, "mapstore") for each in imports(path))}
    keys = {"cdc.engine.handover", "cdc.engine.verify"}
    assert all(name in keys or within(name, "targets.mapstore") or within(name, "compare") for name in users)


def test_mapstore_stands_alone() -> None:
    """It is useful without cdc, so it does not import cdc, nor does its compiled part."""
    for name, path in modules("mapstore").items():
        assert not any(each.split(".")[0] == "cdc" for each in imports(path)), name
    for path in [*(ROOT / "mapstore").glob("*.pyx"), *(ROOT / "mapstore").glob("*.pxi")]:
        assert not re.search(r"^\s*(?:from|import|cimport) cdc\b", path.read_text(encoding="utf-8"), re.MULTILINE), path.name


def test_command_line_is_imported_only_by_main() -> None:
    """The file that makes `python -m cdc` work."""
    users = {name for package in ("cdc", "mapstore") for name, path in modules(package).items() if "cdc.cli" in imports(path)}
    assert users == {"cdc.__main__"}


def test_output_goes_through_the_console() -> None:
    """The console escapes control sequences of a server; JSON has its own escaping, and the sandbox's server is ours."""
    for name, path in modules("cdc").items():
        if name.startswith(("cdc.sandbox", "cdc.demo", "cdc.ops.console")):
            continue
        for call in re.findall(r"(?<!\.)\bprint\((.*)", path.read_text(encoding="utf-8")):
            assert call.startswith(("json.dumps(", "printable_json(", "cdc.migrate(")), f"{name}: print({call}"


SOURCES = [path for path in tracked() if path.relative_to(ROOT).parts[0] in ("cdc", "mapstore") and path.suffix in LONGEST]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_files_stay_short(path: Path) -> None:
    """Python and compiled files alike; a compiled file may be longer if its first lines say why."""
    lines = path.read_text(encoding="utf-8").splitlines()
    longest = LONGEST[path.suffix]
    excused = path.suffix != ".py" and f"longer than {longest} lines because" in " ".join(lines[:15])
    assert len(lines) <= longest or excused


def test_packages_include_all_of_their_data() -> None:
    """Files that are neither Python nor compiled have to be named in pyproject.toml to be in the wheel."""
    named = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["package-data"]
    for path in tracked():
        package = ".".join(path.relative_to(ROOT).parts[:-1])
        if package.split(".")[0] in ("cdc", "mapstore") and path.suffix not in (".py", ".pyx", ".pxi"):
            assert any(path.match(pattern) for pattern in named.get(package, [])), path


# errors


def errors(base: type[CdcError] = CdcError) -> list[type[CdcError]]:
    """Every error class of the package."""
    assert cdc.sandbox
    return [base, *(each for child in base.__subclasses__() if child.__module__.startswith("cdc.") for each in errors(child))]


GENERAL = {"UnsupportedEvent", "UnreadableAnswer", "DamagedState"}
"""Errors of which the caller can do nothing by their code: they share that of everything else, 1."""


def documented_codes() -> dict[int, str]:
    """The table of exit codes in docs/reference.md: the text of each row, by its number."""
    section = text("docs/reference.md").partition("## Exit codes")[2].partition("\n## ")[0]
    rows = {int(code): rest for code, rest in re.findall(r"^\| *(\d+) *\|(.+)$", section, re.MULTILINE)}
    assert rows
    return rows


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_every_error_is_in_the_table_of_exit_codes(error: type[CdcError]) -> None:
    """Under its own number."""
    assert f"`{error.__name__}`" in documented_codes()[error.exit_code]


def test_exit_code_belongs_to_one_kind_of_error() -> None:
    """A script can distinguish every case that it could act upon; a subclass may share the code of its base."""
    own = [each for each in errors() if "exit_code" in vars(each)]
    assert len({each.exit_code for each in own}) == len(own)
    inherited = {each.__name__ for each in errors() if "exit_code" not in vars(each) and each.__bases__ == (CdcError,)}
    assert inherited == GENERAL


def explained_sentences() -> list[tuple[str, str]]:
    """The table of errors in docs/reference.md: each part of a sentence between `...`, with the row's codes."""
    section = text("docs/reference.md").partition("## What the errors mean")[2].partition("\n#")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| (.+?) \|", section, re.MULTILINE)
    return [(part.strip(" ,"), codes) for codes, cell in rows for part in re.split(r"\.\.\.|;", cell) if part.strip(" ,")]


def test_explained_messages_are_printed_by_the_package() -> None:
    """Each part is found in a text of the package, and each code is one of the table of exit codes."""
    nodes = [node for path in modules("cdc").values() for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    compiled = [path.read_text(encoding="utf-8") for suffix in ("*.pyx", "*.pxi") for path in (ROOT / "cdc" / "mysql").glob(suffix)]
    known = "\n".join([*texts, *compiled])
    assert len(explained_sentences()) > 60
    assert [part for part, _ in explained_sentences() if part not in known] == []
    assert {int(code) for _, codes in explained_sentences() for code in codes.split(",")} <= set(documented_codes())


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_every_error_has_a_test(error: type[CdcError]) -> None:
    """By its name, or by its exit code where the command is tested."""
    named = re.compile(rf"\b{error.__name__}\b")
    others = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert any(named.search(path.read_text(encoding="utf-8")) for path in others)


def test_public_names_are_importable_from_cdc() -> None:
    """Each name is loaded from the module that the table gives."""
    names = [name for some in cdc._MODULES.values() for name in some]
    assert sorted(names) == sorted(cdc.__all__)
    assert all(getattr(cdc, name) for name in names)
    assert {error.__name__ for error in errors()} <= set(names)
    assert set(names) <= set(dir(cdc))
    assert cdc.__version__ == version("cdc")


def test_hints_name_options_of_their_command() -> None:
    """Hints made for a migration are reworded for commands without --strategy, or that cannot simply be run again."""
    sources = [
        ast.parse(path.read_text(encoding="utf-8")) for name, path in modules("cdc").items() if name not in ("cdc.cli", "cdc.ops.summary")
    ]
    texts = [node.value for tree in sources for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    hints = [each for each in texts if re.search(r"--strategy full|un the same command", each) and "\n" not in each]
    assert len(hints) > 10
    for hint in hints:
        other, tail = CdcError("", hint=hint), CdcError("", hint=hint)
        summary.reword(other)
        assert len(re.findall("--strategy full", other.hint)) == len(re.findall("cdc migrate --strategy full", other.hint)), hint
        summary.reword_for_tail(tail, "GTIDS")
        assert "--strategy" not in tail.hint, hint
        assert not re.search("un the same command again", tail.hint), hint


# documents

COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def shell_lines(markdown: str) -> list[str]:
    """The lines of a document's blocks of code and its `inline code`, without comments and prompts."""
    blocks = re.findall(r"^(?: {4}|\t)(.+)$", markdown, re.MULTILINE) + re.findall(r"`([^`\n]+)`", markdown)
    fenced = [line for block in re.findall(r"^```\w*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    return [re.sub(r"\s#.*", "", line).strip().removeprefix("$ ") for line in [*blocks, *fenced]]


DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
WIDEST = 120
"""Columns of prose. A table's row and a block of code are as wide as they must be, an address in a link counts nothing."""


def prose(markdown: str) -> list[str]:
    """A document's lines outside of tables and blocks of code, links without their addresses."""
    unfenced = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in unfenced.splitlines() if not line.startswith(("|", "    "))]
    return [re.sub(r"\]\([^)]*\)", "]()", line) for line in lines]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_prose_is_wrapped(name: str) -> None:
    """For people who read it in an editor beside the code, and for diffs that show the changed sentence."""
    assert [line for line in prose(text(name)) if len(line) > WIDEST] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_documents_exist(name: str) -> None:
    """With the options shown."""
    for line in shell_lines(text(name).partition("## What this version does not do")[0]):
        if found := re.match(r"cdc ([a-z]+)(.*)", line):
            assert found[1] in COMMANDS, line
            options = {option for parameter in typer.main.get_command(app).commands[found[1]].params for option in parameter.opts}  # type: ignore[attr-defined]
            assert set(re.findall(r"(?<=\s)--[a-z-]+", found[2])) <= options | {"--help"}, line


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_in_documents_exist(name: str) -> None:
    """The Makefile is the one command file."""
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {found[1] for line in shell_lines(text(name)) if (found := re.match(r"make ([a-z-]+)", line))}
    assert named <= targets
    if name == "README.md":
        assert {"demo", "test"} <= named


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tests_and_modules_named_in_documents_exist(name: str) -> None:
    """`test_...` by its name, files by their path from the top."""
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for test in set(re.findall(r"`(test_\w+)`", text(name))):
        assert re.search(rf"def {test}\(", tests), test
    for path in set(re.findall(r"`((?:cdc|mapstore|tests|docs|docker|benchmarks)/[\w./-]+)`", text(name))):
        assert (ROOT / path).exists(), path


def anchors(markdown: str) -> set[str]:
    """The names under which a document's headings are linked to, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_in_documents_resolve(name: str) -> None:
    """Files relative to the document, as a browser follows them, and headings in them."""
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text(name)):
        linked = (ROOT / name).parent.joinpath(target) if target else ROOT / name
        assert linked.exists(), target
        assert not heading or heading in anchors(linked.read_text(encoding="utf-8")), f"{target}#{heading}"


def test_every_command_is_documented() -> None:
    """With its options, in docs/reference.md."""
    reference = text("docs/reference.md")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"### cdc {name}" in reference
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in reference, f"{name} {option}"


def check_names() -> set[str]:
    """The names of preflight's checks, from its tables and from direct calls."""
    names = {
        *preflight._CHECKS,
        *preflight._MARIADB_CHECKS,
        *(setting.name for setting in preflight._SETTINGS),
        *(each[0] for each in tables._TABLE_CHECKS),
        tables.ALL_TABLES,
    }
    for module in (preflight, mariadb, tables):
        source = Path(module.__file__).read_text(encoding="utf-8")
        names |= set(re.findall(rf'\b{Check.__name__}\(\s*"(\w+)"', source)) | set(re.findall(r'\bname = "(\w+)"', source))
    return names


def test_every_preflight_check_is_documented() -> None:
    """By the name that `cdc check` prints, and no other names."""
    section = text("docs/reference.md").partition("## Preflight checks")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == check_names()


def test_every_session_variable_is_documented() -> None:
    """Those that sessions set, and no others."""
    section = text("docs/reference.md").partition("## What a session sets")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {*session._TEXT, *session._EVERY, *session._MYSQL, *session._MARIADB, "lock_wait_timeout"}


def test_every_crash_point_is_used_and_documented() -> None:
    """Once in the code and once in docs/handover.md, and only existing names anywhere."""
    used = [name for path in modules("cdc").values() for name in re.findall(r'crash_point\("([\w-]+)"\)', path.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(crash.POINTS)
    section = text("docs/handover.md").partition("## Crash points")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", section, re.MULTILINE)) == set(crash.POINTS)


def test_every_environment_variable_is_documented() -> None:
    """Those that the package reads, and no others."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in modules("cdc").values())
    read = set(re.findall(r'"(CDC_[A-Z_]+)"', sources)) | {"CDC_SANDBOX_MYSQL_URL", "CDC_SANDBOX_MARIADB_URL"}
    section = text("docs/reference.md").partition("## Environment variables")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(CDC_[A-Z_]+)`", section, re.MULTILINE)) == read


def test_every_folder_is_described() -> None:
    """In CONTRIBUTING.md, so that a newcomer finds the folder that answers a question."""
    house = text("CONTRIBUTING.md").partition("## The house")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z/]+)/`", house))
    folders = {path.relative_to(ROOT).parent for path in tracked() if path.suffix in (".py", ".pyx")} - {Path()}
    top = {"/".join(folder.parts[:2] if folder.parts[0] == "cdc" else folder.parts[:1]) for folder in folders}
    assert top <= named
    tests = {path.relative_to(ROOT).parts[1] for path in tracked() if path.match("tests/*/test_*.py")}
    assert tests <= named
    inside = text("CONTRIBUTING.md").partition("### Inside `cdc/mysql`")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+\.pyx?)`", inside)
    assert len(files) > 20
    assert [file for file in files if not (ROOT / "cdc" / "mysql" / file).exists()] == []


def glossary() -> list[tuple[str, str]]:
    """The words of docs/glossary.md with their definitions, in its order."""
    return re.findall(r"^\* \*\*([^*]+)\*\*: (.+?)(?=^\* |\Z)", text("docs/glossary.md"), re.MULTILINE | re.DOTALL)


def test_glossary_defines_words_once_in_alphabetical_order() -> None:
    """In one or two sentences, three at most: it is looked up, not read."""
    words = [word.casefold() for word, _ in glossary()]
    assert len(words) == text("docs/glossary.md").count("\n* ") > 40
    assert words == sorted(set(words))
    assert [word for word, meaning in glossary() if len(re.findall(r"[.:](?:\s|$)", meaning)) > 3] == []


def test_glossary_words_are_used() -> None:
    """In the code or on another page, in singular or plural, as words or within a name: `ChunkRange`, `chunk_range`."""
    paths = [path for path in tracked() if path.suffix in (".py", ".pyx", ".pxi", ".md") and path.name != "glossary.md"]
    used = " ".join(path.read_text(encoding="utf-8") for path in paths if path.parts[len(ROOT.parts)] in ("cdc", "mapstore", "docs"))
    words = [word.replace(" ", r"[\s_]*") for word, _ in glossary()]
    assert [word for word in words if not re.search(rf"\b{word}(?:s|es)?\b", used, re.IGNORECASE)] == []


ROW_PAGE = "docs/how-a-row-travels.md"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:cdc|mapstore)\.[\w.]+)`", text(ROW_PAGE)))))
def test_functions_named_in_the_way_of_a_row_exist(name: str) -> None:
    """A commit that moves or renames a function corrects the page."""
    pkgutil.resolve_name(name)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_handover_members_named_in_documents_exist(name: str) -> None:
    """Attributes too, which cannot be imported."""
    source = text("cdc/engine/handover.py")
    for member in set(re.findall(r"`Handover\.(\w+)`", text(name))):
        assert re.search(rf"(?:self\.|def ){member}\b", source), member


def test_way_of_a_row_names_the_working_functions() -> None:
    """From the socket to the map and from the crash to the stream: more than twenty, and every short name belongs to a full one."""
    names = set(re.findall(r"`((?:cdc|mapstore)\.[\w.]+)`", text(ROW_PAGE)))
    assert len(names) > 20
    short = set(re.findall(r"\b([A-Z][A-Za-z]+\.[a-z_]+)\b", text(ROW_PAGE)))
    assert [each for each in short if not any(name.endswith(f".{each}") for name in names)] == []


MACHINE = re.compile(r"(?<![\w.:/-])/(?:work|root|home|tmp|Users)/[\w.-]+")


@pytest.mark.parametrize("path", [path for path in tracked() if path.suffix in (".md", ".toml", ".yml")], ids=lambda path: path.name)
def test_documents_avoid_paths_of_one_machine(path: Path) -> None:
    """The commands work wherever the project is."""
    assert not MACHINE.findall(path.read_text(encoding="utf-8"))


def test_commands_start() -> None:
    """Each with -h, as a person calls it."""
    for name in sorted(COMMANDS):
        done = subprocess.run([sys.executable, "-m", "cdc", name, "-h"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_command_prints_its_version_and_completes_words() -> None:
    """As a shell asks it to, after `cdc --install-completion`."""

    def said(*arguments: str, **environment: str) -> str:
        program = str(Path(sys.executable).with_name("cdc"))
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True, env=os.environ | environment)
        return done.stdout

    with (ROOT / "pyproject.toml").open("rb") as file:
        assert said("--version") == f"cdc {tomllib.load(file)['project']['version']}\n"
    assert "complete -o default" in said("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    for words, completed in {"cdc ver": "verify\n", "cdc migrate --strat": "--strategy\n"}.items():
        assert said(_CDC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))) == completed


# tests

WAITS = {
    "Popen", "Thread", "ThreadPoolExecutor", "Timer", "break_connections", "eventually", "interrupted", "send_signal", "sleep",
    "start_held", "wait_applied", "wait_streaming",
}  # fmt: skip
"""What a test calls that waits for something."""


RIDDLE = re.compile(
    r"test_(what|whatever|who|whoever|nobody|nothing|none|there|each|some|it|however)_|_(is|are)_(no|none)_|_of_now$|_as_it_(is|was)$"
)
"""Parts of test names that a reader has to decode."""
NEGATED_NOUN = re.compile(r"(?<![Tt]here) (is|are) no (?!longer\b|more\b)[a-zA-Z]")
"""As in "5 is no percentage": say what is wrong, or "is not a percentage"."""


@pytest.mark.parametrize(
    "path", [path for path in tracked() if path.name.startswith("test_") and path.suffix == ".py"], ids=lambda path: path.name
)
def test_names_of_tests_say_the_behaviour(path: Path) -> None:
    """Subject first, verb in the present, so that the name of a failed test says what does not hold."""
    names = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [name for name in names if name.startswith("test_") and RIDDLE.search(name)] == []


@pytest.mark.parametrize("package", ["cdc", "mapstore", "benchmarks"])
def test_docstrings_and_messages_negate_the_verb(package: str) -> None:
    """A sentence says what a thing is; where it cannot, it says "is not a replica"."""
    for name, path in modules(package).items():
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert [text for text in texts if isinstance(text, str) and NEGATED_NOUN.search(text)] == [], name


def marks(nodes: list[ast.expr]) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "waits" for each in nodes for node in ast.walk(each))


def test_every_test_that_waits_is_marked() -> None:
    """So that `make rounds` repeats it; a module's mark counts for all of its tests."""
    unmarked = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if marks([node.value for node in tree.body if isinstance(node, ast.Assign)]):
            continue
        for test in tree.body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_") and not marks(test.decorator_list):
                called = {getattr(node.func, "attr", getattr(node.func, "id", "")) for node in ast.walk(test) if isinstance(node, ast.Call)}
                unmarked += [f"{path.name}: {test.name}"] if called & WAITS else []
    assert not unmarked, f"put @pytest.mark.waits before these tests: {unmarked}"
