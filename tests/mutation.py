# SPDX-License-Identifier: MIT
"""Do the tests notice when the code is wrong? Changes one token of some sources at a time, in a copy
of the tree, builds the tests and runs them until one fails: the mutant is killed. What is changed,
where, and which tests judge is a Check; `tests/mutate` and `tests/emulation/mutate` have one each."""

import argparse
import collections
import concurrent.futures
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import pathlib
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
NEEDED = ["CMakeLists.txt", "README.md", "bench", "host", "include", "kernels", "tests", "tools"]
ENVIRONMENT = {
    **os.environ,
    "ASAN_OPTIONS": "allocator_may_return_null=1",
    "TSAN_OPTIONS": "allocator_may_return_null=1:halt_on_error=1",
}

Mutant = collections.namedtuple("Mutant", "path line kind before after")
Judge = collections.namedtuple("Judge", "build program cases", defaults=["*"])


@dataclasses.dataclass
class Check:
    title: str  # of the table
    command: str
    table: pathlib.Path
    goal: float  # % of the mutants are killed
    base: pathlib.Path  # sources are named from here
    sources: list
    not_code: str  # expression for what is not looked at, comments first
    kinds: dict  # kind of change: [(expression, replacement) on a line]
    choose: typing.Callable  # (check, all mutants) -> those that are tried
    equivalent: dict  # (file, the changed line or the one that is gone): why no test can tell
    builds: dict  # name: options for CMake
    judges: typing.Callable  # mutant -> the judges that it has to pass, the quick ones first
    about: str  # of the table: what the mutants are, and what is tried


def swap(*pairs):
    """One binary operator for another: clang-format puts blanks around these, and around nothing
    else that looks like them."""
    return [(f" {re.escape(old)} ", f" {new} ") for old, new in pairs]


def file_name(check, mutant):
    return str(mutant.path.relative_to(check.base))


def name(check, mutant):
    return (f"{file_name(check, mutant)}:{mutant.line} {mutant.kind}: {mutant.before} => "
            f"{mutant.after}")


def place(check, mutant):
    """The file and the changed line, or the one that is gone."""
    return file_name(check, mutant), mutant.after or mutant.before


def is_equivalent(check, mutant):
    return place(check, mutant) in check.equivalent


def all_mutants(check):
    """Each kind of change in each place."""
    mutants = {}
    for path in check.sources:
        text = path.read_text()
        code = re.sub(check.not_code, lambda m: re.sub(r"[^\n]", " ", m[0]), text,
                      flags=re.S | re.M)
        for number, (line, seen) in enumerate(zip(text.splitlines(), code.splitlines()), 1):
            if seen.startswith("#") or re.search("static_assert|__attribute__|while \\(0\\)", seen):
                continue
            for kind, changes in check.kinds.items():
                for match, new in ((m, new) for expression, new in changes
                                   for m in re.finditer(expression, seen)):
                    # A group stands for what it is in the line, text in quotes included.
                    new = re.sub(r"\\(\d)", lambda g: line[slice(*match.span(int(g[1])))], new)
                    after = line[:match.start()] + new + line[match.end():]
                    if after != line:
                        mutants.setdefault((path, number, after), Mutant(
                            path, number, kind, line.strip(), after.strip()))
    return list(mutants.values())


def by_hash(share):
    """Of all mutants the share that is wanted of each one's kind, and at least one in each file: by
    the hash of the change and its place among equal ones of its file, so that new code elsewhere
    does not make it another sample."""
    def choose(check, mutants):
        seen, least, chosen = collections.Counter(), {}, []
        for mutant in mutants:
            what = (file_name(check, mutant), mutant.kind, mutant.before, mutant.after)
            seen[what] += 1
            digest = hashlib.sha256("\0".join((*what, str(seen[what]))).encode()).digest()
            key = int.from_bytes(digest[:8], "big") / 2**64 / share(mutant)
            least[mutant.path] = min(least.get(mutant.path, (float("inf"), None)), (key, mutant))
            if key < 1.0:
                chosen.append(mutant)
        alone = {path: mutant for path, (_, mutant) in least.items()}
        for mutant in chosen:
            alone.pop(mutant.path, None)
        return sorted([*chosen, *alone.values()])
    return choose


@functools.cache
def fingerprint(*programs):
    """Of all sources but the tests of other programs."""
    own = {f"{program}.cc" for program in programs}
    files = [
        file for room in NEEDED for file in [ROOT / room, *sorted((ROOT / room).rglob("*"))]
        if file.is_file() and file.suffix != ".md" and "mutat" not in file.name
        and (file.name in own or not re.fullmatch(r"test_\w+\.cc", file.name))]
    return hashlib.sha256(b"\0".join(
        str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in files)).hexdigest()


def rests_on(check, mutant, verdict):
    """What a verdict depends on: a kill on the program that killed, a survival on all judges."""
    judges = [judge for judge in check.judges(mutant)
              if verdict in ("survived", "not compiled", f"killed by {judge.build}/{judge.program}")]
    return [*map("/".join, judges), fingerprint(*(judge.program for judge in judges))]


class Tree:
    """A copy of the project's sources, and its builds."""

    def __init__(self, check, folder):
        self.check, self.folder, self.source = check, folder, folder / "source"
        self.source.mkdir(parents=True, exist_ok=True)
        for room in NEEDED:
            for file in [ROOT / room, *(ROOT / room).rglob("*")]:
                copy = self.source / file.relative_to(ROOT)
                if file.is_dir():
                    copy.mkdir(parents=True, exist_ok=True)
                elif not copy.exists() or copy.read_bytes() != file.read_bytes():
                    shutil.copy(file, copy)
        for build, options in check.builds.items():
            subprocess.run(
                ["cmake", "-S", self.source, "-B", folder / build, "-G", "Ninja", "-DEWC_CUDA=OFF",
                 "-DBUILD_TESTING=ON", *options],
                check=True, stdout=subprocess.DEVNULL)
        self.limits = {}  # seconds of a core that each process of a judge may take
        # From earlier runs: the case that killed a mutant, which goes first; the seconds of judges
        # that passed as they are; verdicts, by what was judged, an interrupted run's included.
        self.killed, self.passed = self.load("killed"), self.load("passed")
        self.verdicts = self.load("verdicts")

    def load(self, what):
        file = self.folder / f"{what}.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def store(self, what):
        (self.folder / f"{what}.json").write_text(json.dumps(getattr(self, what), indent=1))

    def prepare(self, judge):
        """Builds the judge, which passes as long as nothing is changed."""
        if not self.compiles(judge):
            sys.exit(f"{'/'.join(judge)} is not built without a mutation")
        build = self.folder / judge.build
        programs = [file for file in (build / judge.program, build / "ewc", build / "libewc.so")
                    if file.exists()]
        key = " ".join([*judge, *(hashlib.sha256(f.read_bytes()).hexdigest() for f in programs)])
        if key not in self.passed:
            if failed := self.fails(judge):
                sys.exit(f"{'/'.join(judge)} fails without a mutation: {failed}")
            self.passed[key] = self.seconds
            self.store("passed")
        self.limits[judge] = 5 + 2 * self.passed[key]

    def compiles(self, judge):
        return subprocess.run(["ninja", "-C", self.folder / judge.build, "-j1", judge.program],
                              stdout=subprocess.DEVNULL).returncode == 0

    def fails(self, judge, case=None):
        """The case that fails, or "" if none does. Files and processes that it leaves go."""
        limit = self.limits.get(judge, 600)  # seconds of a core, for each process
        with tempfile.TemporaryDirectory() as scratch:
            log = pathlib.Path(scratch) / "log"
            with log.open("wb") as out:
                test = subprocess.Popen(
                    ["setarch", "-R", self.folder / judge.build / judge.program,
                     f"--gtest_filter={case or judge.cases}", "--gtest_fail_fast"],
                    env={**ENVIRONMENT, "TMPDIR": scratch}, cwd=scratch, start_new_session=True,
                    preexec_fn=lambda: resource.setrlimit(
                        resource.RLIMIT_CPU, (int(limit) + 1, resource.RLIM_INFINITY)),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out)

            def end_all():
                try:
                    os.killpg(test.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

            timer = threading.Timer(10 * limit + 60, end_all)  # where it waits for ever
            timer.start()
            _, code, used = os.wait4(test.pid, 0)
            timer.cancel()
            end_all()
            test.returncode = code
            self.seconds = used.ru_utime + used.ru_stime  # of its children, too
            if code == 0:
                return ""
            seen = re.findall(r"^\[ +(?:RUN|FAILED) +\] (\S+?),?(?: |$)",
                              log.read_text(errors="replace"), re.M)
            return seen[-1] if seen else judge.cases

    def judge(self, mutant):
        """killed by a judge, survived, or not compiled."""
        verdict = self.find_verdict(mutant)
        self.verdicts[name(self.check, mutant)] = [
            verdict, rests_on(self.check, mutant, verdict)]
        self.store("verdicts")
        return verdict

    def find_verdict(self, mutant):
        key = name(self.check, mutant._replace(line=0))
        file = self.source / mutant.path.relative_to(ROOT)
        right = file.read_text()
        lines = right.splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        wrong = "".join(lines)
        file.write_text(wrong)
        judges = self.check.judges(mutant)
        last, case = self.killed.get(key, (None, None))
        judges = sorted(judges, key=lambda judge: list(judge) != last)
        try:
            for judge in judges:
                if judge not in self.limits:
                    file.write_text(right)
                    self.prepare(judge)
                    file.write_text(wrong)
                if not self.compiles(judge):
                    return "not compiled"
                known = case if list(judge) == last else None
                failed = self.fails(judge, known) or (known and self.fails(judge))
                if failed:
                    self.killed[key] = (list(judge), failed)
                    self.store("killed")
                    return f"killed by {judge.build}/{judge.program}"
            return "survived"
        finally:
            file.write_text(right)


def earlier_verdicts(check, mutants, build):
    known = {}
    for file in build.glob("*/verdicts.json"):
        found = json.loads(file.read_text())
        for mutant in mutants:
            verdict, of = found.get(name(check, mutant), ("", []))
            if verdict and of == rests_on(check, mutant, verdict):
                known[mutant] = verdict
    return known


def judge_all(check, mutants, build, jobs):
    """The verdict on each mutant, which is also printed. What an earlier run has found of the same
    sources is not looked for again, so that a run may be interrupted."""
    known, trees = earlier_verdicts(check, mutants, build), queue.Queue()
    new = [m for m in mutants if not is_equivalent(check, m) and m not in known]
    for job in range(jobs if new else 0):
        trees.put(Tree(check, build / str(job)))

    def judge(mutant):
        verdict = known.get(mutant)
        if is_equivalent(check, mutant):
            verdict = "equivalent"
        elif verdict is None:
            tree = trees.get()
            verdict = tree.judge(mutant)
            trees.put(tree)
        print(f"{verdict:30} {name(check, mutant)}", flush=True)
        return verdict

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(judge, mutants))


def summary(title, groups, outcomes):
    """A table of outcomes, one row for each group; and the percentage that was killed in all."""
    rows = collections.defaultdict(collections.Counter)
    for group, outcome in zip(groups, outcomes):
        rows[group][outcome] += 1
        rows["all"][outcome] += 1
    rows["all"] = rows.pop("all")  # comes last
    text = [f"| {title} | mutants | killed | survived | killed % | equivalent | not compiled |",
            "|---|---|---|---|---|---|---|"]
    for group, c in rows.items():
        mutants = c["killed"] + c["survived"]
        percent = 100.0 * c["killed"] / mutants if mutants else 100.0
        text.append(f"| {group} | {mutants} | {c['killed']} | {c['survived']} | {percent:.1f} | "
                    f"{c['equivalent']} | {c['not compiled']} |")
    return "\n".join(text) + "\n", percent


def commit():
    """" of COMMIT", where the sources are a working copy of the repository."""
    found = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*"],
                           capture_output=True, text=True)
    return f" of {found.stdout.strip()}" if found.returncode == 0 else ""


OWN_SECTIONS = "Survivors", "Equivalent mutants"


def report(check, mutants, verdicts, every_place):
    """The committed table, and the share of killed mutants."""
    outcomes = [verdict.split(" by ")[0] for verdict in verdicts]
    files, killed = summary("file", [file_name(check, m) for m in mutants], outcomes)
    kinds, _ = summary("change", [mutant.kind for mutant in mutants], outcomes)
    judges = collections.Counter(
        verdict.split(" by ")[1] for verdict in verdicts if " by " in verdict)

    def listed(wanted):
        return "".join(
            f"- {file_name(check, m)}:{m.line}, {m.kind}\n  - `{m.before}`\n  - `{m.after}`\n"
            + (f"  - {check.equivalent[place(check, m)]}\n"
               if wanted == "equivalent" else "")
            for m, outcome in zip(mutants, outcomes) if outcome == wanted) or "None.\n"

    command = check.command + " --all" * every_place
    about = check.about if not every_place else check.about.split("\n\n")[0] + "\n\nAll are tried."
    killers = ", ".join(f"{judge} {count}" for judge, count in judges.most_common())
    return f"""# {check.title}

Written on {datetime.date.today()}{commit()} by `{command}`.

{about}

**{killed:.1f} %** of the mutants are killed. By: {killers}.

{files}
{kinds}
## {OWN_SECTIONS[0]}

{listed("survived")}
## {OWN_SECTIONS[1]}

They compute the same, or nothing that is promised, so no test can tell; they count nowhere.

{listed("equivalent")}""", killed


def written_by_hand(table):
    """The sections of the committed table that are not of report(), without blank lines at the end."""
    text = table.read_text() if table.exists() else ""
    sections = re.split("^## ", text, flags=re.M)[1:]
    return [f"## {section.rstrip()}\n" for section in sections
            if section.split("\n")[0] not in OWN_SECTIONS]


def main(check, description):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--build", default=ROOT / "build" / check.command.replace("/", "-"), type=pathlib.Path)
    parser.add_argument("--jobs", default=1, type=int)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("filter", nargs="?", default="", metavar="FILTER")
    options = parser.parse_args()

    every = all_mutants(check)
    known = {place(check, mutant) for mutant in every}
    for file, after in set(check.equivalent) - known:
        sys.exit(f"listed as equivalent, yet no mutant: {file}: {after}")
    mutants = [m for m in (every if options.all else check.choose(check, every))
               if re.search(options.filter, name(check, m))]
    if options.list:
        print(*(name(check, m) for m in mutants), sep="\n")
        return
    verdicts = judge_all(check, mutants, options.build.resolve(), options.jobs)
    text, killed = report(check, mutants, verdicts, options.all)
    if not options.filter:
        check.table.write_text(text + "".join(
            f"\n{section}" for section in written_by_hand(check.table)))
    print(f"{killed:.1f} % of {len(mutants)} mutants killed")
    sys.exit(killed < check.goal)
